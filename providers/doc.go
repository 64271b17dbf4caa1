// Package providers is the contract between the installer's engine and what
// makes things: machines on this host, machines reached over SSH, clouds, the
// cluster's own host steps. It holds the six calls, how a call reports its
// progress, and the small decisions every provider takes alike.
//
// The request and response types are those of Pulumi's SDK, so every
// plugin.Provider satisfies [Provider].
//
// # What a provider promises
//
// Objects are named by a URN, which is stable for the life of a resource, and
// by the ID that Create returns. The engine writes down what it is about to do
// before it calls, and may die at any moment. So:
//
//   - Check and Diff are pure and change nothing. They accept unknown
//     (computed) values anywhere in the new inputs. An unknown counts as a
//     change in Diff. Only where old and new inputs do not tell whether it
//     takes a new object may Diff look; it still changes nothing.
//   - Create with Preview set changes nothing and returns the outputs as far as
//     they can be known; a key left out or computed is unknown to dependents.
//     The same holds for Update with Preview set.
//   - Create may be called again, with the same URN and the same [Token], after
//     a crash, a cancelled call or an error. It adopts what the earlier call
//     left and finishes it, or removes that and starts over: at the end there
//     is one object, with the properties of this call (they may differ from
//     those of the first). A Create with another Token for the same URN is a
//     replacement made while the old object lives and must not adopt that one;
//     a provider that cannot keep both apart reports DeleteBeforeReplace in
//     Diff.
//   - Read answers what is there. An object that is gone is an empty ID and no
//     error. With an empty ID in the request the question is: did a Create with
//     this URN and Token leave something behind? The answer carries its ID, or
//     is empty.
//   - Update drives the object to NewInputs from whatever condition it is in:
//     OldInputs may be out of date after a crash, and may equal NewInputs when
//     an earlier call did not finish.
//   - Delete of something that is gone, or half gone, succeeds. After it no
//     part of the object is left.
//   - A Create or Update that made something but could not finish returns the
//     response with ID and properties, and a *plugin.InitError ([Partial]). The
//     engine keeps the object, tells the user, and calls Update next time. An
//     error of any other type from Create says that there is nothing, or
//     nothing that Create or Read with the same Token would not find.
//   - An Update that failed and left the object as it was before says so with
//     [Untouched]: nothing is recorded then, as if it had not been called.
//   - Values that are secret in the inputs stay secret in the outputs; secrets
//     the provider makes up are marked with resource.MakeSecret.
//   - A call ends soon after its context is done. A context ends early only if
//     the operator insists; the first interrupt lets running calls finish. One
//     that may take long looks at [Stopping] and ends between two steps.
//   - Errors carry a fault.Kind where one is known. Messages hold no secrets.
//   - All calls may run concurrently, those for one URN never do.
//
// providers/conformance holds each provider to this.
package providers
