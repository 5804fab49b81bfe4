"""`medtransformer click --cluster`: an address where nobody is, said in one line before anything is written."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path


def test_a_cluster_that_does_not_answer_is_an_error_in_one_line(repository: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    image, output = repository / "sample_data" / "example_ct.nii.gz", tmp_path / "labels.nii.gz"
    command = [str(Path(sys.executable).with_name("medtransformer")), "click", str(image), "-o", str(output)]
    command += ["--point", "40,50,100", "--cluster", f"127.0.0.1:{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith("error: ")
    assert f"no scheduler answers at tcp://127.0.0.1:{port}" in said.stderr.replace("\n", " ")
    assert "Traceback" not in said.stderr
    assert not output.exists()
