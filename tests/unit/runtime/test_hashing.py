import hashlib
from pathlib import Path

import pytest

import prism
from prism.runtime import hashing
from prism.runtime.hashing import code_version, config_sha256, directory_sha256, file_sha256, path_sha256


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_file_hash_is_sha256(tmp_path):
    """The million-letter vector of FIPS 180."""
    path = tmp_path / "a"
    path.write_bytes(b"a" * 1_000_000)
    assert file_sha256(path) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


def test_directory_hash_sees_names_contents_and_nothing_else(tmp_path):
    files = {"b/x.txt": "1", "a.txt": "2"}
    reference = directory_sha256(_write(tmp_path / "1", files))
    assert directory_sha256(_write(tmp_path / "2", dict(reversed(files.items())))) == reference
    assert directory_sha256(_write(tmp_path / "3", files | {".cache/x": "3", "b/.hidden": "4"})) == reference
    others = [
        {"b/x.txt": "1", "a.txt": "3"},
        {"b/y.txt": "1", "a.txt": "2"},
        {"b/x.txt": "2", "a.txt": "1"},
        {"b/x.txt": "1"},
        {"b/x.txt": "1", "a.txt": "2", "c": ""},
    ]
    hashes = {directory_sha256(_write(tmp_path / f"other-{i}", other)) for i, other in enumerate(others)}
    assert len(hashes | {reference}) == len(others) + 1


def test_a_snapshot_of_links_hashes_like_the_files(tmp_path):
    blobs = _write(tmp_path / "blobs", {"1": "weights"})
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model").symlink_to(blobs / "1")
    assert directory_sha256(snapshot) == directory_sha256(_write(tmp_path / "plain", {"model": "weights"}))


def test_path_hash_takes_either_and_names_what_is_missing(tmp_path):
    root = _write(tmp_path / "d", {"x": "1"})
    assert path_sha256(root) == directory_sha256(root)
    assert path_sha256(root / "x") == hashlib.sha256(b"1").hexdigest()
    with pytest.raises(FileNotFoundError):
        path_sha256(tmp_path / "nowhere")


def test_config_hash_ignores_order_and_sees_types():
    assert config_sha256({"a": 1, "b": [1, 2]}) == config_sha256({"b": [1, 2], "a": 1})
    variants = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": None}, {"a": [1]}, {}]
    assert len({config_sha256(variant) for variant in variants}) == len(variants)
    with pytest.raises(ValueError):
        config_sha256({"a": float("nan")})
    with pytest.raises(TypeError):
        config_sha256({"a": Path("x")})


def test_code_version_follows_the_source_but_not_the_report(tmp_path, monkeypatch):
    files = {"stages/sft.py": "a = 1\n", "errors.py": "", "report/html.py": "", "cli.py": "", "notes.txt": ""}
    root = _write(tmp_path / "package", files)
    monkeypatch.setattr(hashing, "PACKAGE_ROOT", root)

    def version() -> str:
        code_version.cache_clear()
        return code_version()

    try:
        before = version()
        _write(root, {"report/html.py": "x", "cli.py": "x", "notes.txt": "x"})
        assert version() == before
        _write(root, {"stages/sft.py": "a = 2\n"})
        changed = version()
        assert changed != before
        _write(root, {"stages/new.py": ""})
        assert version() not in (before, changed)
    finally:
        code_version.cache_clear()


def test_the_package_root_is_this_package():
    assert Path(prism.__file__).resolve().parent == hashing.PACKAGE_ROOT
