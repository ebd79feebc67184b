"""Lightning's own count of batches, as a checkpoint keeps it."""

from typing import Any

NO_BATCH = {"ready": 0, "completed": 0, "started": 0, "processed": 0}
ONE_BEGUN = {"ready": 1, "completed": 0, "started": 1, "processed": 0}


def rest_between_steps(fit_loop: dict[str, Any], *, validation_is_due: bool) -> None:
    """Make the state of the loops, in place, that of a run at rest after a whole number of optimiser steps.

    Lightning continues from how far it was within the hook that saved: before a batch that had been fetched it would
    count a logged step twice; within a validation it would go on with the rest of it. At rest it goes on with the
    next batch, unless `validation_is_due`: then with the validation, from its first batch on.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for span in ("total", "current"):
        batches[span] = dict.fromkeys(batches[span], batches[span]["completed"])
    if validation_is_due:
        # A validation that has begun is what Lightning repeats; zero of its batches count.
        validation = fit_loop["epoch_loop.val_loop.batch_progress"]
        validation |= {"total": dict(ONE_BEGUN), "current": dict(NO_BATCH)}
