"""One volume, many objects, every prompt: the session behind the Prompt dock and `medtransformer click`.

All coordinates are voxels in (z, y, x), an integer is a voxel's centre, boxes are half-open. A prediction is made for
one object on one slice (a `SliceKey`: object, axis, index) from all of that object's prompts on it.

Synchronously (tests, scripts, the command line)::

    session = PromptSession(model, volume)                      # window=(low, high) to override the automatic one
    prompt_id = session.add_point((z, y, x), positive=True, object_id=1, axis=0)    # encodes, predicts, accepts
    prompt_id = session.add_box((z, y0, x0), (z, y1, x1), object_id=1, axis=0)
    prompt_id = session.add_mask(mask, axis=0, index=z, object_id=1)                # refine an existing label
    session.labels                                              # (z, y, x) uint16, a read-only snapshot

With a window that must not freeze, the same in three steps::

    request = session.add_prompt(PointPrompt((z, y, x), positive=True, object_id=1, axis=0))   # main thread, instant
    outcome = session.predict(request)      # any thread; changes no state; encodes the slice if it is not cached
    session.accept(outcome)                 # main thread; False, and nothing changes, if it has become stale

`request` is None when there is nothing to predict (the last prompt of a slice was removed: its mask is gone already).
`request.prompt_id` names the prompt added or moved. A stale outcome is one whose slice has other prompts by now;
it is remembered, so that undo back to those prompts needs no new prediction.

    session.remove_prompt(prompt_id) -> Request | None
    session.move_prompt(prompt_id, new_prompt) -> Request | None
    session.prompts                         # dict {prompt_id: PointPrompt | BoxPrompt | MaskPrompt}, oldest first
    session.choose_candidate(key, n) / session.cycle_candidate(key)      # the model's other masks; instant
    session.candidates(key) -> Candidates | None       # .masks (m, H, W) bool, .scores (m,), .chosen
    session.pending() -> list[Request]      # slices whose prediction is missing (after undo, or dropped ones)
    session.predict_pending()               # the same, synchronously

Objects. `session.objects` is a tuple of `SessionObject(object_id, name, visible order)`; later ones lie on top.
    session.new_object(name="") -> object_id; session.rename_object(object_id, name);
    session.remove_object(object_id); session.clear_object(object_id) (prompts and masks go, the object stays)

Undo. `session.undo()` and `session.redo()` return the list of Requests still to be predicted (normally empty), and do
nothing at the end of the history; `session.can_undo`, `session.can_redo`. Every call above that changes something is
one step. `accept` is no step of its own: it fills in the step that asked for it.

For the canvas: `session.live_labels` is a read-only view of the array in which the session works: give it to the layer
once and refresh after each change. `session.revision` grows with every change; `session.subscribe(callback)` calls
`callback(session)` after each, in the thread that made it; it returns a function that unsubscribes.
`session.slice_mask(key)` is one object's (H, W) bool mask on a slice.

    session.prefetch(axis, indices)         # generator of Progress: encode slices ahead, any thread
    session.propagate(object_id=1)          # generator of Progress | Partial[PropagatedSlice] | Result[Propagation]:
                                            # changes no state; session.accept_propagation(result) does, in one step.
                                            # Driven by session.propagate_now(object_id) it accepts by itself.
    session.save(path); PromptSession.load(path, model, volume)

Errors: PointOutsideVolume, InvalidPrompt, UnsupportedModel (the model takes no clicks), InvalidSession, CannotWrite.
"""
