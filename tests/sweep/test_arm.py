"""How an arm tells whether its directory is of its config."""

import pytest
import yaml

from moe_toy.errors import UserError
from moe_toy.sweep.arm import Arm


def test_a_changed_config_is_named_and_a_moved_directory_is_none(tmp_path):
    config = {"run_dir": "elsewhere", "optimizer": {"lr": 0.1}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    now = {"run_dir": str(tmp_path), "optimizer": {"lr": 0.2}}
    assert Arm({}, now).changes() == ["optimizer.lr was 0.1, is now 0.2"]


@pytest.mark.parametrize("content", [b"", b"a: [", b"text", b"a: 1", b"\xff\xfe"], ids=str)
def test_a_damaged_config_is_told(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"config.yaml is damaged; remove it if the config of this arm is as it was"):
        Arm({}, {"run_dir": str(tmp_path)}).changes()
