"""Which schedules cron takes, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.errors import InvalidInput
from mcp_ssh.linux.system.cron import check_schedule, entry


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


@pytest.mark.requirement("fault.R15")
@pytest.mark.parametrize(
    "schedule", ["0~59 * * * *", "~ * * * *", "~30 2~5 * * *", "0 0 * * sat-sun", "0 0 * * fri-sun"]
)
def test_a_schedule_that_the_machines_own_cron_takes_is_taken(schedule: str) -> None:
    assert check_schedule(schedule) == schedule


@pytest.mark.parametrize(
    "schedule", ["59~0 * * * *", "0~60 * * * *", "0 0 * * sun-sat~", "0 0 * jan~mar *", "~~ * * * *"]
)
def test_a_random_range_has_bounds_too(schedule: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_schedule(schedule)


@pytest.mark.requirement("fault.N3")
def test_a_percent_sign_that_cron_takes_for_a_newline_is_refused_with_the_escaped_line() -> None:
    with pytest.raises(InvalidInput) as error:
        entry("@daily", "tar -cf /b/$(date +%F).tar /etc")
    assert error.value.hint == r"escape it: tar -cf /b/$(date +\%F).tar /etc"
    with pytest.raises(InvalidInput) as error:
        entry("@daily", r"date +\%F %H \\%M")
    assert error.value.hint == r"escape it: date +\%F \%H \\\%M"
    assert entry("@daily", r"date +\%F") == r"@daily date +\%F"
    assert entry("", "@daily date +%F", percent=False) == "@daily date +%F"
