"""A server's first steps: what they import, and what they leave for later."""

import subprocess
import sys


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_are_checked_before_what_takes_long_is_imported() -> None:
    run(
        "import sys\n"
        "import closeby.service.launch\n"
        "late = {'sqlalchemy', 'numpy', 'uvicorn', 'fastapi'} & sys.modules.keys()\n"
        "assert not late, late"
    )


def test_logs_need_no_rich_and_leave_it_to_be_imported_by_others() -> None:
    run(
        "import sys\n"
        "from closeby.service.launch import _import_structlog\n"
        "_import_structlog()\n"
        "assert 'structlog' in sys.modules\n"
        "assert 'rich' not in sys.modules\n"
        "import rich.console\n"
        "assert rich.console.Console"
    )
