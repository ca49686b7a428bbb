"""Look at a scan before and after, in a browser on this machine."""

import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click

from ctinterp_dagster.cli.actions.outputs import check_files
from ctinterp_dagster.cli.options.view import Options
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.evaluation.viewer import page
from ctinterp_dagster.records import whole_file
from ctinterp_dagster.scan.io import read_scan


def run(options: Options) -> None:
    """Write the page, or serve it.

    Args:
        options: those given; without `html` the page is served until it is ended.

    Raises:
        ScanError: a file cannot be read, or two do not belong together.
        ParamsError: the page exists, or the port is taken.
    """
    html, given = options.html, (options.thick, options.thin, options.std, options.truth)
    check_files(filter(None, given), [html] if html else [], force=options.force)
    before, after = read_scan(options.thick, options.series).volume, read_scan(options.thin).volume
    spread = read_scan(options.std, deviation=True).volume if options.std else None
    real = read_scan(options.truth).volume if options.truth else None
    text = page(before, after, spread, real, options.thin.name)
    if html:
        with whole_file(html) as partial:
            partial.write_text(text, encoding="utf-8")
        click.echo(f"{html}: {len(text) / 2**20:.1f} MiB, opens in any browser")
        return
    serve(text.encode(), options.port, opens=options.opens)


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
