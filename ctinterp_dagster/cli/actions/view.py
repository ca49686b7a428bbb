"""Look at a scan before and after, in a browser on this machine."""

import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from ctinterp_dagster.cli.actions.outputs import check_files
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.evaluation.viewer import page
from ctinterp_dagster.records import whole_file
from ctinterp_dagster.scan.io import read_scan

PAGES = (".html", ".htm")


def run(
    *,
    thick: Path,
    thin: Path,
    std: Path | None,
    series: str | None,
    truth: Path | None,
    html: Path | None,
    port: int,
    force: bool,
    opens: bool,
) -> None:
    """Write the page, or serve it.

    Args:
        thick: the scan.
        thin: its restoration.
        std: its standard deviation; None for none.
        series: which one of the scans that `thick` holds; None where it holds one.
        truth: a real thin scan on the grid of `thin`; None for none.
        html: file of the page; None serves it until it is ended.
        port: to serve it at; 0 takes a free one.
        force: replace a page that exists.
        opens: open a browser.

    Raises:
        ScanError: a file cannot be read, or two do not belong together.
        ParamsError: the page exists, or the port is taken.
        UsageError: the page is not called .html.
    """
    if html and html.suffix.lower() not in PAGES:
        raise click.UsageError(f"--html writes a page: give a name that ends in .html, not {html.name}")
    check_files(filter(None, (thick, thin, std, truth)), [html] if html else [], force=force)
    before, after = read_scan(thick, series).volume, read_scan(thin).volume
    spread, real = (read_scan(path).volume if path else None for path in (std, truth))
    text = page(before, after, spread, real, thin.name)
    if html:
        with whole_file(html) as partial:
            partial.write_text(text, encoding="utf-8")
        click.echo(f"{html}: {len(text) / 2**20:.1f} MiB, opens in any browser")
        return
    serve(text.encode(), port, opens=opens)


def serve(content: bytes, port: int, *, opens: bool) -> None:
    """Give one page to browsers on this machine until interrupted.

    Args:
        content: the page, UTF-8 HTML.
        port: of 127.0.0.1; 0 takes a free one.
        opens: show it in the browser.

    Raises:
        ParamsError: the port cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            known = self.path == "/" and host in ("127.0.0.1", "localhost")  # no name that points here by design
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content) if known else 0))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content if known else b"")

        def log_message(self, *_: object) -> None:
            pass

    try:
        listening = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ParamsError(f"port {port} cannot be used ({error.strerror}): give another --port, or 0") from error
    with listening as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        click.echo(f"{address} shows the scan; Ctrl-C ends it")
        if opens:
            webbrowser.open(address)
        server.serve_forever()
