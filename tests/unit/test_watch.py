"""Files that change are noticed once, and only when they have settled."""

from __future__ import annotations

import os
from pathlib import Path

from proxy.config.files import stamp
from proxy.config.model import Stamp
from proxy.watch import Watch


def files_of(*paths: Path) -> dict[Path, Stamp]:
    return {path: stamp(path) for path in paths}


def looks(watch: Watch, files: dict[Path, Stamp], times: int = 4) -> list[bool]:
    return [watch.have_changed(files) for _ in range(times)]


def test_a_file_that_stays_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("a")

    assert looks(Watch(), files_of(file)) == [False] * 4


def test_a_change_is_told_once_after_two_looks_that_find_the_same(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("a")
    files, watch = files_of(file), Watch()

    file.write_text("half")
    assert not watch.have_changed(files)
    file.write_text("the whole")

    # The first look finds another text than the one before: it may go on being written.
    assert looks(watch, files) == [False, True, False, False]


def test_what_was_told_and_not_taken_is_told_again_when_it_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("a")
    before = file.stat()
    files, watch = files_of(file), Watch()
    with file.open("r+") as changed:
        changed.write("with a mistake")
    assert looks(watch, files) == [False, True, False, False]

    with file.open("r+") as changed:
        changed.truncate()
        changed.write("a")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert stamp(file) == files[file]
    assert looks(watch, files) == [False, True, False, False]


def test_a_configuration_that_was_taken_is_no_change_although_it_names_other_files(
    tmp_path: Path,
) -> None:
    file, roots = tmp_path / "proxy.yaml", tmp_path / "roots.pem"
    file.write_text("a")
    roots.write_text("b")
    before, watch = files_of(file), Watch()
    file.write_text("names the roots")
    assert looks(watch, before) == [False, True, False, False]

    taken = files_of(file, roots)
    assert looks(watch, taken) == [False] * 4
    roots.write_text("others")
    assert looks(watch, taken) == [False, True, False, False]


def test_a_link_that_is_swapped_two_folders_above_is_a_change(tmp_path: Path) -> None:
    # As the kubelet does it: file -> ..data/file, ..data -> a folder with the date.
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "proxy.yaml").write_text(name)
    data, file = tmp_path / "..data", tmp_path / "proxy.yaml"
    data.symlink_to("one")
    file.symlink_to("..data/proxy.yaml")
    files, watch = files_of(file), Watch()

    other = tmp_path / "..data_tmp"
    other.symlink_to("two")
    other.replace(data)

    assert looks(watch, files) == [False, True, False, False]


def test_a_file_that_goes_or_comes_is_a_change(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_text("a")
    files = files_of(here, there)
    gone = Watch()
    here.unlink()
    assert looks(gone, files) == [False, True, False, False]
    there.write_text("a")
    assert looks(gone, files) == [False, True, False, False]
