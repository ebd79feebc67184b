import pytest

from moe_toy.data.position import Position, saved_position
from moe_toy.errors import UserError

SAVED = {"num_samples": 24, "num_tokens": 768, "samples_per_step": 8, "global_step": 3}


def test_steps_of_one_size_add_up_from_where_others_ended():
    assert Position(24, 768, 3).after(5, samples_per_step=4, sequence_length=32) == Position(32, 1024, 5)


def test_steps_of_another_size_go_on_at_the_saved_sample_and_it_is_said(caplog):
    position = saved_position(SAVED, samples_per_step=4, sequence_length=32, by_epochs=False)
    assert position == Position(24, 768, 3)
    assert "a step was of 8 sequences before, now it is of 4" in caplog.text


def test_epochs_of_another_length_are_refused_and_the_same_are_not():
    assert saved_position(SAVED, samples_per_step=8, sequence_length=32, by_epochs=True).samples == 24
    with pytest.raises(UserError, match=r"set global_batch_size=8 or trainer.max_steps"):
        saved_position(SAVED, samples_per_step=4, sequence_length=32, by_epochs=True)


def test_a_checkpoint_that_knows_no_tokens_is_read():
    old = {"num_samples": 24, "global_step": 3}
    assert saved_position(old, samples_per_step=8, sequence_length=32, by_epochs=False) == Position(24, 768, 3)
