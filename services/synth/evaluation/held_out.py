"""Which recordings a model may be judged by: those that its config says were kept back."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.errors import InvalidInputError, NotFoundError
from services.synth.corpus.clips import Clip, split_clips


def divided(config: Mapping[str, Any], clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """(training, held-out) of a model's recordings, as its training divided them.

    The names of what was kept back stand in the config's `training.validation_files`; of a single
    file its end was. For a model of foreign training all are held out, as far as is known.

    Raises NotFoundError, naming the first that is missing, if a file that was kept back is not
    among the clips, and InvalidInputError if there are no clips.
    """
    if not clips:
        raise InvalidInputError("no recordings to judge by")
    training = config.get("training")
    if not isinstance(training, Mapping):
        return [], list(clips)
    names = {clip.name for clip in clips}
    kept_back = training.get("validation_files")
    missing = sorted(set(kept_back or ()) - names)
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise NotFoundError(
            f"{missing[0]}{more} was kept back from this model's training, and is not among these "
            "recordings: give those that it was trained on",
            culprit=missing[0],
        )
    if kept_back is None or set(kept_back) == names:
        # Configs of former versions have no names; and of one file, the name says nothing.
        return split_clips(clips, float(training["validation_share"]), int(training["seed"]))
    return (
        [clip for clip in clips if clip.name not in kept_back],
        [clip for clip in clips if clip.name in kept_back],
    )
