package fetch

import (
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openLocal opens a file of the host with the rights of the task's user: the
// agent is root, and what only root may read is not for every task.
func openLocal(name string, owner Owner) (*os.File, error) {
	var f *os.File
	err := as(owner, func() (err error) {
		// A pipe must not make the agent wait for who writes to it.
		f, err = os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		_ = f.Close() // err says more
		return nil, err
	}
	return f, nil
}

// as calls do with the file rights of owner. Linux keeps them for each thread;
// this one ends with its goroutine, so nothing else ever runs with them.
func as(owner Owner, do func() error) error {
	if owner.UID == os.Geteuid() {
		return do()
	}
	groups := groupsOf(owner)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: that ends the thread
		done <- func() error {
			// The raw calls: those of package syscall change all threads.
			if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); errno != 0 {
				return fmt.Errorf("take the groups of user %d: %w", owner.UID, errno)
			}
			if err := unix.Setfsgid(owner.GID); err != nil {
				return fmt.Errorf("take group %d: %w", owner.GID, err)
			}
			if err := unix.Setfsuid(owner.UID); err != nil {
				return fmt.Errorf("take user %d: %w", owner.UID, err)
			}
			// Neither call tells that it was refused; asking again does.
			if uid, err := unix.SetfsuidRetUid(-1); err != nil || uid != owner.UID {
				return fmt.Errorf("take user %d: the kernel refused", owner.UID)
			}
			return do()
		}()
	}()
	return <-done
}

// groupsOf are the further groups of a user, as far as the host knows it.
func groupsOf(owner Owner) []uint32 {
	u, err := user.LookupId(strconv.Itoa(owner.UID))
	if err != nil {
		return nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var groups []uint32
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			groups = append(groups, uint32(n))
		}
	}
	return groups
}
