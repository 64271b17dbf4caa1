// Command tiny is the one program of the test image. It does what its first
// argument says; started as sh it does what the words after -c say.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	log.SetFlags(0)
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "sh" && len(args) == 2 && args[0] == "-c" {
		args = strings.Fields(args[1])
	}
	if len(args) == 0 {
		log.Fatal("tiny: says what to do in its first argument")
	}
	verb, args := args[0], append(args[1:], "", "")
	switch verb {
	case "print":
		fmt.Println(strings.TrimSpace(strings.Join(args, " ")))
	case "complain":
		fmt.Fprintln(os.Stderr, strings.TrimSpace(strings.Join(args, " ")))
	case "env":
		fmt.Println(os.Getenv(args[0]))
	case "id":
		groups, err := os.Getgroups()
		check(err)
		fmt.Println(os.Getuid(), os.Getgid(), groups)
	case "pwd":
		dir, err := os.Getwd()
		check(err)
		fmt.Println(dir)
	case "hostname":
		name, err := os.Hostname()
		check(err)
		fmt.Println(name)
	case "cat":
		if args[0] == "" {
			_, err := io.Copy(os.Stdout, os.Stdin)
			check(err)
			return
		}
		b, err := os.ReadFile(args[0])
		check(err)
		_, err = os.Stdout.Write(b)
		check(err)
	case "write":
		check(os.WriteFile(args[0], []byte(args[1]), 0o644))
	case "stat": // mode, owner and group of a file
		fi, err := os.Stat(args[0])
		check(err)
		st, _ := fi.Sys().(*syscall.Stat_t)
		fmt.Printf("%o %d %d\n", fi.Mode().Perm(), st.Uid, st.Gid)
	case "room": // bytes of a file system
		var st syscall.Statfs_t
		check(syscall.Statfs(args[0], &st))
		fmt.Println(st.Blocks * uint64(st.Bsize))
	case "resolve":
		addrs, err := net.LookupHost(args[0])
		check(err)
		fmt.Println(addrs)
	case "exit":
		os.Exit(number(args[0]))
	case "kill":
		check(syscall.Kill(os.Getpid(), syscall.Signal(number(args[0]))))
		time.Sleep(time.Hour)
	case "sleep":
		time.Sleep(time.Duration(number(args[0])) * time.Second)
	case "ignore": // every SIGTERM, and says so
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		for range c {
			fmt.Println("ignored")
		}
	case "graceful": // ends with status 0 on SIGTERM
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		<-c
		fmt.Println("bye")
	case "deaf": // handles no signal at all, as few Go programs do
		var none [32]byte
		for sig := range uintptr(31) {
			_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig+1, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
		}
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "eat": // so many MiB
		var all [][]byte
		for range number(args[0]) {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
		}
		fmt.Println(len(all))
	case "spin": // one thread for so many seconds, then CPU time used in ms
		spin(time.Duration(number(args[0])) * time.Second)
	case "fork": // so many sleeping threads
		for range number(args[0]) {
			go func() { runtime.LockOSThread(); time.Sleep(time.Hour) }()
		}
		time.Sleep(time.Hour)
	case "serve":
		serve(args[0])
	case "get":
		client := &http.Client{Timeout: 5 * time.Second}
		resp, err := client.Get(args[0])
		check(err)
		_, err = io.Copy(os.Stdout, resp.Body)
		check(err)
	default:
		log.Fatalf("tiny: does not know %q", verb)
	}
}

func spin(d time.Duration) {
	runtime.LockOSThread()
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	fmt.Println((u.Utime.Sec+u.Stime.Sec)*1000 + (u.Utime.Usec+u.Stime.Usec)/1000)
}

// serve answers with the client's address; /sick makes /health fail and /well
// makes it pass again.
func serve(address string) {
	var sick atomic.Bool
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	http.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	http.HandleFunc("/well", func(http.ResponseWriter, *http.Request) { sick.Store(false) })
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	if !strings.Contains(address, ":") {
		address = ":" + address
	}
	l, err := net.Listen("tcp", address)
	check(err)
	fmt.Println("serving")
	check(http.Serve(l, nil))
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	check(err)
	return n
}

func check(err error) {
	if err != nil {
		log.Fatal("tiny: ", err)
	}
}
