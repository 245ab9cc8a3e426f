"""What the filters leave out, and what they let through."""

import warnings

import pytest

from bitstorm.core.third_party_noise import without_third_party_warnings


@pytest.mark.parametrize(
    ("module", "category", "text"),
    [
        ("petastorm.reader", FutureWarning, "old"),
        ("petastorm.workers_pool.dummy_pool", ResourceWarning, "unclosed file <x.parquet>"),
        ("socket", ResourceWarning, "unclosed <socket.socket fd=5, laddr=('127.0.0.1', 1)>"),
        ("tqdm.auto", Warning, "IProgress not found"),
    ],
)
def test_what_a_user_cannot_change_is_left_out(
    module: str, category: type[Warning], text: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with without_third_party_warnings():
            warnings.warn_explicit(text, category, f"{module}.py", 1, module)


@pytest.mark.parametrize(
    ("module", "category", "text"),
    [
        ("bitstorm.store.files", UserWarning, "a.csv is skipped"),
        ("bitstorm.store.files", ResourceWarning, "unclosed file <a.csv>"),
        ("socket", ResourceWarning, "unclosed <socket.socket fd=5, raddr=('203.0.113.5', 443)>"),
        ("notebook", FutureWarning, "old"),
    ],
)
def test_warnings_of_ours_and_of_the_user_are_shown(
    module: str, category: type[Warning], text: str
) -> None:
    with pytest.warns(category), without_third_party_warnings():
        warnings.warn_explicit(text, category, f"{module}.py", 1, module)
