"""What a recording does not allow, said in the report rather than computed from placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moe_toy.routing import RoutingTrace


def notes_on(
    trace: RoutingTrace,
    tokens_by_length: Mapping[int, int],
    segment_lengths: Sequence[int],
    *,
    prompted: bool = False,
) -> list[str]:
    """Sentences on what is left out of the results of such traces. `tokens_by_length` counts the tokens of all
    sequences of each length, `prompted` says whether some trace has prompts; empty where everything is known and all
    sequences are of one length."""
    notes = []
    if trace.token_ids is None:
        notes.append("Token ids are unknown: vocabulary specialization, text and shuffling of equal tokens are")
    elif not trace.ordered:
        notes.append("The experts of a token stand in no order of rank: vocabulary specialization and text are")
    elif trace.padded:
        notes.append("Tokens have different numbers of experts: vocabulary specialization and text are")
    notes = [f"{note} left out." for note in notes]
    if trace.padded:
        notes.append("A cache ratio of 1 holds as many experts as a token activates at most.")
    if prompted or trace.prompt_lengths is not None:
        notes.append("Hit rates are those of the answers; the prompts warm the caches.")
    if len(tokens_by_length) > 1:
        total = sum(tokens_by_length.values())
        notes.append(f"Sequences have {min(tokens_by_length)} to {max(tokens_by_length)} tokens.")
        for segment in segment_lengths:
            short = sum(tokens for length, tokens in tokens_by_length.items() if length < segment)
            if short:
                notes.append(f"{short} of {total} tokens lie in sequences shorter than a segment of {segment}.")
    return notes
