package container

// NotRunnable is for tests.
var NotRunnable = notRunnable
