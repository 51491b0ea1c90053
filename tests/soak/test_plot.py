"""The soak's picture: what is on it, how large it is, and what it says without matplotlib."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gsmtp.soak.plot import Sample, draw

MIB = 1 << 20


def samples(number: int, workers: int = 2, total: int = 100_000) -> list[Sample]:
    """A run that levels off at 36 MiB, with values that move from one sample to the next."""
    taken = []
    for place in range(number):
        done = (place + 1) / number
        names = [f"worker {each + 1}" for each in range(workers)]
        memory = {
            name: (36 - 12 / (1 + 40 * done) + (place * 7 + each) % 11 / 20) * MIB for each, name in enumerate(names)
        }
        lag = {name: (1 + (place * 5 + each) % 13 / 4) / 1000 for each, name in enumerate(names)}
        rate = 600.0 + (place * 3) % 17 * 5
        taken.append(Sample(160 * done, int(total * done), rate, {"master": 14.0 * MIB, **memory}, lag))
    return taken


def words(svg: str) -> list[str]:
    """The texts of a picture: each is drawn as outlines, below a comment that has it."""
    return [found.strip() for found in re.findall(r"<!--(.*?)-->", Path(svg).read_text())]


def drawn(taken: Sequence[Sample], path: Path, *, warm_at: int | None = 10_000, verdict: str = "PASS") -> list[str]:
    return draw(taken, str(path), title="100,000 emails through 2 workers", verdict=verdict, warm_at=warm_at)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A picture as most tests want one: a passing run, its warm-up a third of it."""
    return drawn(samples(50), tmp_path_factory.mktemp("picture") / "soak.svg", warm_at=30_000)


def test_both_files_are_written(picture: list[str]) -> None:
    svg, png = picture
    assert [Path(path).name for path in picture] == ["soak.svg", "soak.png"]
    assert ElementTree.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    header = Path(png).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    assert width > height > 500


def test_it_says_what_is_shown_in_which_unit(picture: list[str]) -> None:
    found = words(picture[0])
    for word in ["100,000 emails through 2 workers", "PASS", "warm-up", "master", "worker 1", "worker 2"]:
        assert word in found
    assert {"memory (USS), MiB", "loop lag, ms", "messages (100,000 in 2 min 40 s)"} <= set(found)
    assert " ".join(found).count("per second") == 1


def test_the_same_samples_make_the_same_file(picture: list[str], tmp_path: Path) -> None:
    """So that a plot which is kept changes only when the run does."""
    again = drawn(samples(50), tmp_path / "soak", warm_at=30_000)
    assert Path(again[0]).read_bytes() == Path(picture[0]).read_bytes()


def test_a_dot_in_the_name_is_no_suffix(tmp_path: Path) -> None:
    paths = drawn(samples(3), tmp_path / "soak-0.1", verdict="INCONCLUSIVE")
    assert paths == [str(tmp_path / "soak-0.1.svg"), str(tmp_path / "soak-0.1.png")]
    assert "INCONCLUSIVE" in words(paths[0])


def test_the_memory_axis_begins_at_zero(tmp_path: Path) -> None:
    """Else a few pages more would look like a mountain."""
    high = [Sample(each.seconds, each.messages, each.rate, {"worker 1": 500.0 * MIB}, {}) for each in samples(50)]
    found = words(drawn(high, tmp_path / "soak")[0])
    assert found.count("0") >= 3
    assert "500" in found


def test_the_warm_up_is_shaded(picture: list[str], tmp_path: Path) -> None:
    from matplotlib.image import imread

    def shade(path: str) -> tuple[float, float]:
        """How white the picture is at a tenth and at nine tenths of the messages, where no line passes."""
        picture = imread(path)
        row = picture[round(picture.shape[0] * 0.2)]
        return tuple(float(row[round(picture.shape[1] * place), :3].mean()) for place in (0.12, 0.9))  # type: ignore[return-value]

    shaded, plain = shade(picture[1])
    assert 0.85 < shaded < 0.97
    assert plain == 1.0
    svg, png = drawn(samples(50), tmp_path / "soak", warm_at=None)
    assert shade(png) == (1.0, 1.0)
    assert "warm-up" not in words(svg)


@pytest.mark.parametrize(("number", "workers"), [(2000, 8), (20_000, 2)])
def test_many_samples_make_no_large_file(tmp_path: Path, number: int, workers: int) -> None:
    svg, _ = drawn(samples(number, workers), tmp_path / "soak")
    assert Path(svg).stat().st_size < 200_000


def test_one_late_loop_among_thousands_is_seen(tmp_path: Path) -> None:
    taken = samples(5000)
    late = taken[2500]
    taken[2500] = Sample(late.seconds, late.messages, late.rate, late.memory, {"worker 1": 9.0})
    assert "5000" in words(drawn(taken, tmp_path / "soak")[0])


def test_workers_may_come_and_go(tmp_path: Path) -> None:
    taken = samples(50)
    for place, each in enumerate(taken):
        there = "worker 1" if place <= 20 else "worker 2"
        taken[place] = Sample(each.seconds, each.messages, each.rate, {there: each.memory[there]}, {})
    assert {"worker 1", "worker 2"} <= set(words(drawn(taken, tmp_path / "soak")[0]))


def test_one_sample_before_any_message_is_no_error(tmp_path: Path) -> None:
    svg, _ = drawn([Sample(0.0, 0, 0.0, {"worker 1": 20.0 * MIB}, {"worker 1": 0.0})], tmp_path / "soak", warm_at=None)
    assert "messages (0 in 0 s)" in words(svg)


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no samples"):
        drawn([], tmp_path / "soak")


def test_without_matplotlib_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'gsmtp[soak]'")):
        drawn(samples(5), tmp_path / "soak")
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_loaded_by_drawing_only() -> None:
    program = "import sys, gsmtp.soak.plot, gsmtp.soak.verdict; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
