"""Which schedules cron takes, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.probes.cron import check_schedule


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("* * * * *", "* * * * *"),
        ("  5   4 * *  sun ", "5 4 * * sun"),
        ("*/5 0-6/2 1,15 JAN-mar 0-7", "*/5 0-6/2 1,15 JAN-mar 0-7"),
        ("@Daily", "@daily"),
    ],
)
def test_what_crontab_knows_is_kept_in_one_form(given_text: str, kept: str) -> None:
    assert check_schedule(given_text) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        "", "@", "@noon", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
        "5-1 * * * *", "*/0 * * * *", "5/2 * * * *", "-1 * * * *", "1,,2 * * * *", "x * * * *", "1- * * * *",
    ],
)  # fmt: skip
def test_what_cron_would_misread_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        check_schedule(wrong)


@given(st.text(max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    try:
        kept = check_schedule(text)
    except ValueError:
        return
    assert check_schedule(kept) == kept
