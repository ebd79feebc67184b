from tests.model.conftest import make_config  # noqa: F401
