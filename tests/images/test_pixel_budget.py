"""The budget of pixels over all threads: bound, order, release."""

import contextlib
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, PngImagePlugin

from saliency_pipeline.images import decode
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.pixel_budget import PixelBudget
from tests.broken_images import encode, photo


def test_threads_never_hold_more_than_the_budget_and_use_all_of_it():
    budget, lock = PixelBudget(100), threading.Lock()
    held: list[int] = []
    most: list[int] = []

    def work(pixels: int) -> None:
        with budget.hold(pixels):
            with lock:
                held.append(pixels)
                most.append(sum(held))
            time.sleep(0.0005)
            with lock:
                held.remove(pixels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 50, 7, 60, 25] * 40))
    assert 60 < max(most) <= 100
    assert budget.free == 100


def test_what_is_larger_than_the_budget_runs_alone_and_is_not_overtaken():
    budget = PixelBudget(100)
    order: list[str] = []
    entered = threading.Event()

    def work(name: str, pixels: int) -> None:
        with budget.hold(pixels):
            order.append(name)
            if name == "large":
                entered.set()
                assert budget.free == 0

    with budget.hold(10):
        threads = [threading.Thread(target=work, args=("large", 5000))]
        threads[0].start()
        while len(budget._waiting) < 1:
            time.sleep(0.001)
        threads.append(threading.Thread(target=work, args=("small", 1)))
        threads[1].start()
        while len(budget._waiting) < 2:
            time.sleep(0.001)
        assert order == []  # there is room for the small one, but it came later
        assert not entered.is_set()
    for thread in threads:
        thread.join(10)
    assert order == ["large", "small"]
    assert budget.free == 100


def test_an_exception_gives_the_pixels_back():
    budget = PixelBudget(10)
    with pytest.raises(RuntimeError), budget.hold(7):
        raise RuntimeError
    assert budget.free == 10


@pytest.mark.parametrize(
    ("kind", "options", "needed"),
    [
        ("PNG", {}, 600 * 800),
        ("WEBP", {}, 2 * 600 * 800),  # its decoder keeps several copies
        ("JPEG", {}, 150 * 200),  # decoded at a quarter
        ("JPEG", {"progressive": True}, 600 * 800),  # its coefficients are kept at full size
    ],
)
def test_an_image_takes_what_its_decoder_keeps_in_memory(kind, options, needed, monkeypatch):
    budget = PixelBudget(10**6)
    left: list[int] = []
    fit = decode.fit_frame
    monkeypatch.setattr(decode, "DECODING", budget)
    monkeypatch.setattr(decode, "fit_frame", lambda *arguments: (left.append(budget.free), fit(*arguments))[1])
    decode_frame(encode(photo(600, 800), kind, **options), 64)
    assert left == [10**6 - needed]
    assert budget.free == 10**6


def test_a_damaged_image_gives_its_pixels_back(monkeypatch):
    budget = PixelBudget(10**6)
    monkeypatch.setattr(decode, "DECODING", budget)
    with pytest.raises(decode.BadImageError):
        decode_frame(encode(photo(600, 800), "PNG")[:-5000], 64)
    assert budget.free == 10**6


@pytest.mark.parametrize(("side", "expected"), [(4000, ["returned", "given back"]), (3999, ["given back"])])
def test_the_memory_of_a_large_image_is_returned_before_another_gets_its_pixels(side, expected, monkeypatch):
    events: list[str] = []

    class Watched(PixelBudget):
        @contextlib.contextmanager
        def hold(self, pixels):
            with super().hold(pixels):
                yield
            events.append("given back")

    def returned():
        alive = [thing for thing in gc.get_objects() if type(thing) is PngImagePlugin.PngImageFile]
        events.append("returned" if not alive else "too early")

    monkeypatch.setattr(decode, "DECODING", Watched(10**9))
    monkeypatch.setattr(decode, "return_free_memory", returned)
    decode_frame(encode(Image.new("L", (side, 4000)), "PNG", compress_level=1), 8)
    assert events == expected
