"""Each decoder is fuzzed for a while, from texts that mean something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = ("json", "yaml", "protobuf", "json-patch", "merge-patch", "strategic-patch", "selectors")
_SECONDS = 60


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_make_a_decoder_fail(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds = "import sys; from pathlib import Path; from tests.fuzz.decoders import SEEDS"
    write = f"{seeds}; [Path(sys.argv[2], str(n)).write_bytes(s) for n, s in enumerate(SEEDS[sys.argv[1]])]"
    subprocess.run([sys.executable, "-c", write, target, str(corpus)], check=True, timeout=120)
    limits = (f"-max_total_time={_SECONDS}", "-timeout=10", "-rss_limit_mb=1024", f"-artifact_prefix={tmp_path}/")
    command = [sys.executable, "-m", "tests.fuzz.decoders", target, *limits, str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS * 5, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
