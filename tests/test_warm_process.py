import os

import pytest
import warm_process


def test_how_it_ends_and_what_it_says_arrive():
    with pytest.raises(AssertionError, match=r"(?s)before.*ZeroDivisionError"):
        warm_process.run("print('before'); 1 / 0")
    assert warm_process.run("import os; os.kill(os.getpid(), 9)", check=False).returncode == -9
    code = "import os, sys; print(sys.argv, os.environ['A'], os.getpid()); sys.exit(sys.stdin.read())"
    process = warm_process.Process(code, 1, A="b")
    process.stdin.write("why")
    assert process.communicate() == (f"['-c', '1'] b {process.pid}\n", "why\n")
    assert process.returncode == 1
    assert process.pid != os.getpid()
