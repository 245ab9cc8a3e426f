"""A workspace: where it may lie, and what it is bound to."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitstorm.core.errors import WorkspaceBound, WorkspaceError
from bitstorm.core.sidecar import Origin
from bitstorm.core.workspace import open_workspace

SIMULATED = Origin("simulated:7", "bitcoin", "usd")


def test_a_path_and_its_file_url_are_the_same_workspace(tmp_path):
    plain = open_workspace(str(tmp_path / "w s"))
    assert open_workspace(f"file://{tmp_path}/w%20s") == plain
    assert plain.landing == tmp_path / "w s" / "landing"


@pytest.mark.parametrize(
    ("location", "said"),
    [("s3a://bucket/w", "local path"), ("file://host/w", "local path"), ("a#b", "#")],
)
def test_a_place_that_cannot_serve_is_refused(location, said):
    with pytest.raises(WorkspaceError, match=said):
        open_workspace(location)


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(WorkspaceError, match="is a file"):
        open_workspace(str(tmp_path / "f"))


def test_binding_happens_once(tmp_path):
    workspace = open_workspace(str(tmp_path / "w"))
    assert workspace.bound_to() is None
    workspace.check(SIMULATED)
    workspace.bind(SIMULATED)
    workspace.bind(SIMULATED)
    assert workspace.bound_to() == SIMULATED
    other = Origin("simulated:8", "bitcoin", "usd")
    with pytest.raises(WorkspaceBound, match="simulated:7"):
        workspace.bind(other)
    assert workspace.bound_to() == SIMULATED
    assert [path.name for path in workspace.root.iterdir()] == ["workspace.json"]


def test_a_garbled_binding_is_a_clear_sentence(tmp_path):
    workspace = open_workspace(str(tmp_path))
    Path(workspace.binding).write_text('{"source": 1')
    with pytest.raises(WorkspaceError, match=r"workspace\.json"):
        workspace.bound_to()
