package balancer

// Loop is Run's loop over given views.
var Loop = loop
