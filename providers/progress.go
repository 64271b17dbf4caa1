package providers

import (
	"context"
)

// Progress is one report from inside a call: a named step starts or ends, or a
// line of detail about the step that runs.
type Progress struct {
	Step    string // "start etcd"
	Done    bool   // the step ended, with Err nil or not
	Err     error  // set only with Done
	Message string // detail; set only without Done
}

// Reporter receives the progress of one call. It must not block and may be
// called from several goroutines.
type Reporter func(Progress)

type (
	reporterKey struct{}
	tokenKey    struct{}
	stopKey     struct{}
)

// WithReporter returns a context whose calls report to r.
func WithReporter(ctx context.Context, r Reporter) context.Context {
	return context.WithValue(ctx, reporterKey{}, r)
}

// Step reports that the named step starts and returns the function that reports
// its end, and which hands its error back:
//
//	done := providers.Step(ctx, "start etcd")
//	return done(startEtcd(ctx))
//
// Steps of one call may nest and overlap. Without a reporter nothing happens.
func Step(ctx context.Context, name string) (done func(error) error) {
	report(ctx, Progress{Step: name})
	return func(err error) error {
		report(ctx, Progress{Step: name, Done: true, Err: err})
		return err
	}
}

// Note reports a line of detail about a running step, such as what it waits
// for: Note(ctx, "stage bundle", "120 of 310 MiB").
func Note(ctx context.Context, step, message string) {
	report(ctx, Progress{Step: step, Message: message})
}

func report(ctx context.Context, p Progress) {
	if r, ok := ctx.Value(reporterKey{}).(Reporter); ok {
		r(p)
	}
}

// WithToken returns a context that carries the idempotency token of a Create,
// or of the Read that looks for what a Create left.
func WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// Token returns the idempotency token of the running Create: the same for every
// attempt at one object, another for its replacement. It is made of 32
// hexadecimal digits, and empty outside Create and Read.
func Token(ctx context.Context) string {
	t, _ := ctx.Value(tokenKey{}).(string)
	return t
}

// WithStopping returns a context whose calls learn through Stopping that the
// operator asked for an end. It does not end the context itself.
func WithStopping(ctx context.Context, stopping <-chan struct{}) context.Context {
	return context.WithValue(ctx, stopKey{}, stopping)
}

// Stopping returns a channel that is closed when the operator has asked for an
// end: a call that only waits gives up, one that works ends where it can be
// taken up again; both return an error (Partial, if something was made) that
// says so. Without an operator it is nil: nobody will ask.
func Stopping(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(stopKey{}).(<-chan struct{})
	return c
}
