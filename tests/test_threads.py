"""Small matrices are worked on in one thread, and afterwards the user's number is back."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mdsens.threads import in_one_thread


def numbers():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@in_one_thread
def numbers_inside(fail=False):
    if fail:
        raise ValueError("as asked for")
    return numbers()


def test_blas_has_one_thread_inside_and_what_the_user_chose_outside():
    with threadpool_limits(2, user_api="blas"):
        before = numbers()
        assert set(numbers_inside()) == {1}
        assert numbers() == before


def test_an_error_inside_leaves_the_users_number():
    with threadpool_limits(2, user_api="blas"):
        before = numbers()
        with pytest.raises(ValueError, match="as asked for"):
            numbers_inside(fail=True)
        assert numbers() == before
