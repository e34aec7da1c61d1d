import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cameras import CameraConfig
from pipeline.decoding.inputs import Source, camera_source, find_sources, image_files
from pipeline.errors import SourceUnreadable


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def names(sources: tuple[Source, ...]) -> list[str]:
    return [source.name for source in sources]


def test_a_file_is_a_stream_of_its_own_name(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "yard.mp4")
    (source,) = find_sources([str(path)])
    assert (source.name, source.kind, source.location) == ("yard", "file", str(path))
    assert not source.live


def test_an_image_file_is_a_stream_of_one_picture(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "yard.JPG")
    assert find_sources([str(path)])[0].kind == "image"


def test_a_folder_stands_for_each_video_and_for_its_images_together(tmp_path: Path) -> None:
    touch(tmp_path, "clip10.mp4", "clip9.mov", "notes.txt", "2.png", "sub/inner.mp4")
    found = find_sources([str(tmp_path)])
    assert names(found) == ["clip9", "clip10", tmp_path.name]
    assert [source.kind for source in found] == ["file", "file", "images"]


def test_images_come_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "f10.jpg", "f2.jpg", "F1.png", "f.jpg", "f2²3.jpg", "f1b.jpg", "notes.txt")
    ordered = [path.name for path in image_files(tmp_path)]
    assert ordered == ["f.jpg", "F1.png", "f1b.jpg", "f2.jpg", "f2²3.jpg", "f10.jpg"]


def test_a_folder_without_anything_to_read_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(SourceUnreadable, match="holds no video and no image"):
        find_sources([str(tmp_path)])


def test_a_glob_stands_for_what_it_matches_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/clip.mp4", "a/clip10.mp4", "a/clip9.mp4", "a/notes.txt")
    found = find_sources([f"{tmp_path}/*/*"])
    places = [str(Path(source.location).relative_to(tmp_path)) for source in found]
    assert places == ["a/clip9.mp4", "a/clip10.mp4", "b/clip.mp4"]


def test_a_relative_glob_starts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "clip1.mp4", "clip2.mp4")
    monkeypatch.chdir(tmp_path)
    assert names(find_sources(["clip?.mp4"])) == ["clip1", "clip2"]


@pytest.mark.parametrize("pattern", ["*.mp4", "**x/*.mp4", "[", "clip[1-.mp4"])
def test_a_glob_without_a_match_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SourceUnreadable) as caught:
        find_sources([f"{tmp_path}/{pattern}"])
    assert pattern in str(caught.value)


@pytest.mark.parametrize("name", ["clip[1].mp4", "clip*.mp4", "what?.mp4", "12:30:05.mp4"])
def test_a_file_is_a_file_whatever_its_name_looks_like(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "clip1.mp4")
    (source,) = find_sources([str(tmp_path / name)])
    assert source.location == str(tmp_path / name)


def test_streams_of_one_name_are_numbered_whatever_their_case(tmp_path: Path) -> None:
    paths = touch(tmp_path, "a/Yard.mp4", "b/yard.mov", "c/yard-2.mp4", "d/YARD.avi")
    assert names(find_sources([str(path) for path in paths])) == [
        "Yard", "yard-2", "yard-2-2", "YARD-3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://10.0.0.7:554/yard", "10.0.0.7-yard"),
        ("RTSP://cam/live/1", "cam-live-1"),
        ("rtsps://cam", "cam"),
        ("rtsp://me:p@ss/word@cam:8554/yard?token=abc", "cam-yard"),
        ("rtsp://cam/user=admin&password=secret", "cam-user"),
        ("rtsp://me:what?@cam/yard", "camera"),
    ],
)
def test_a_camera_is_named_by_host_and_path(address: str, name: str) -> None:
    (source,) = find_sources([address])
    assert source.name == name
    assert source.live


@pytest.mark.parametrize("named", ["97", "/dev/video97"])
def test_a_capture_device_that_is_not_there_is_named_in_one_line(named: str) -> None:
    with pytest.raises(SourceUnreadable, match=r"^/dev/video97: no such camera; .* has ") as caught:
        find_sources([named])
    assert "\n" not in str(caught.value)


def test_a_capture_device_is_a_live_source(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/video97" or exists(path))
    (source,) = find_sources(["97"])
    assert (source.name, source.kind, source.location) == ("video97", "device", "/dev/video97")
    assert source.live


def test_a_folder_whose_name_is_a_number_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "0/1.png")
    monkeypatch.chdir(tmp_path)
    assert find_sources(["0"])[0].kind == "images"


@given(st.text(min_size=4).map(lambda text: f"s3{text}cr3t"))
def test_no_camera_is_named_by_its_password(password: str) -> None:
    (source,) = find_sources([f"rtsp://admin:{password}@cam/yard"])
    shown = (source.name, source.label)
    assert shown in [("cam-yard", "rtsp://cam/yard"), ("camera", "rtsp://")]


@pytest.mark.parametrize("address", ["ftp://u:secret@host/a.mp4", "srt://u:secret@host"])
def test_an_address_of_another_kind_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(SourceUnreadable, match="cannot read this kind of address") as caught:
        find_sources([address])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("named", ["missing.mp4", "x" * 300, "a\nb.mp4", "a\0b.mp4", "caf\udce9"])
def test_what_does_not_exist_is_refused_in_one_line(named: str) -> None:
    with pytest.raises(SourceUnreadable) as caught:
        find_sources([named])
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(SourceUnreadable, match=r"[Pp]ermission denied"):
        find_sources([str(closed)])


def test_a_long_name_is_cut_between_letters(tmp_path: Path) -> None:
    first, second = touch(tmp_path, "ä" * 100 + "1.mp4", "ä" * 100 + "2.mp4")
    assert names(find_sources([str(first), str(second)])) == ["ä" * 60, "ä" * 60 + "-2"]


def test_a_name_that_is_not_text_becomes_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9\nbar.mp4")
    path.touch()
    (source,) = find_sources([str(path)])
    assert source.name == "caf__bar"
    assert source.location == str(path)
    assert source.label.endswith("caf??bar.mp4")


@pytest.mark.parametrize(
    ("named", "kind", "name"),
    [("rtsps://bob:pw@yard:322/live", "rtsp", "yard-live"),
     ("https://bob:pw@yard/video.mjpg", "http", "yard-video.mjpg"),
     ("gst:v4l2src device=/dev/video0 ! videorate", "gstreamer", "gst-v4l2src")],
)  # fmt: skip
def test_what_may_be_live(named: str, kind: str, name: str) -> None:
    (source,) = find_sources([named])
    assert (source.kind, source.name, source.live) == (kind, name, True)
    assert "pw" not in source.label


def test_of_a_pipeline_only_the_first_element_is_shown() -> None:
    (source,) = find_sources(["gst:souphttpsrc user-pw=secret ! decodebin"])
    assert source.label == "gst:souphttpsrc"
    for empty in ("gst:", "gst: ! queue"):
        with pytest.raises(SourceUnreadable, match="names no element"):
            find_sources([empty])


def test_a_camera_has_its_own_name_and_settings_and_is_one_stream(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    source = camera_source("yard", "rtsp://host/live", CameraConfig(max_fps=5))
    assert (source.name, source.camera.max_fps, source.location) == ("yard", 5, "rtsp://host/live")
    with pytest.raises(SourceUnreadable, match=r"yard: .* is 2 streams"):
        camera_source("yard", str(tmp_path), CameraConfig())
