package wire

import (
	"bufio"
	"io"
	"net/http"
	"strconv"

	"dcos.example/dcos/runtime/fault"
)

// RecordWriter writes records, each as its length in decimal, a newline and
// its bytes. It is for one goroutine at a time.
type RecordWriter struct {
	w   io.Writer
	buf []byte
}

// NewRecordWriter returns a writer of records to w. When w is an http.Flusher
// every record is flushed.
func NewRecordWriter(w io.Writer) *RecordWriter { return &RecordWriter{w: w} }

// Write writes one record in one call of the underlying writer.
func (w *RecordWriter) Write(record []byte) error {
	w.buf = strconv.AppendInt(w.buf[:0], int64(len(record)), 10)
	w.buf = append(w.buf, '\n')
	w.buf = append(w.buf, record...)
	_, err := w.w.Write(w.buf)
	if cap(w.buf) > keep {
		w.buf = nil
	}
	if err != nil {
		return fault.New("write record", fault.Unavailable, err)
	}
	switch f := w.w.(type) {
	case interface{ FlushError() error }:
		if err := f.FlushError(); err != nil {
			return fault.New("write record", fault.Unavailable, err)
		}
	case http.Flusher:
		f.Flush()
	}
	return nil
}

// keep is the largest buffer, in bytes, that readers and writers hold on to
// between records.
const keep = 1 << 20

// RecordReader reads what a RecordWriter wrote. It is for one goroutine at a
// time.
type RecordReader struct {
	r   *bufio.Reader
	max int
	buf []byte
}

// NewRecordReader returns a reader of records from r that refuses records of
// more than max bytes.
func NewRecordReader(r io.Reader, max int) *RecordReader {
	return &RecordReader{r: bufio.NewReader(r), max: max}
}

// Read returns the next record, valid until the next call. The error is
// io.EOF at a clean end of the stream, fault.Invalid when what arrives is not
// RecordIO or is too long, and fault.Unavailable when the stream breaks off.
func (r *RecordReader) Read() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	if cap(r.buf) > keep {
		r.buf = nil
	}
	r.buf = r.buf[:0]
	for len(r.buf) < n { // grows with what arrives, not with what was announced
		start, step := len(r.buf), min(n-len(r.buf), keep)
		if cap(r.buf)-start < step {
			grown := make([]byte, start, min(n, 2*(start+step)))
			copy(grown, r.buf)
			r.buf = grown
		}
		got, err := io.ReadFull(r.r, r.buf[start:start+step])
		r.buf = r.buf[:start+got]
		if err != nil {
			return nil, broken(err)
		}
	}
	return r.buf, nil
}

func (r *RecordReader) length() (int, error) {
	n := 0
	for i := 0; ; i++ {
		c, err := r.r.ReadByte()
		switch {
		case err == io.EOF && i == 0:
			return 0, io.EOF
		case err != nil:
			return 0, broken(err)
		case c == '\n' && i > 0:
			return n, nil
		case c < '0' || c > '9' || i >= 20:
			return 0, fault.Newf("read record", fault.Invalid, "length has byte %q at position %d", c, i)
		}
		if n = 10*n + int(c-'0'); n > r.max {
			return 0, fault.Newf("read record", fault.Invalid, "longer than %d bytes", r.max)
		}
	}
}

func broken(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fault.New("read record", fault.Unavailable, err)
}
