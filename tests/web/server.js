/** A static server, as anyone would use one, that tests can make send headers or damaged files. */

import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = new Map([
  [".css", "text/css"],
  [".html", "text/html; charset=utf-8"],
  [".js", "text/javascript"],
  [".json", "application/json"],
  [".png", "image/png"],
  [".wasm", "application/wasm"],
  [".webmanifest", "application/manifest+json"],
]);

/** Serve `folder` on a free port. `replace`: name -> bytes instead of the file. */
export async function serve(folder, { headers = {}, replace = new Map(), handle } = {}) {
  const requests = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const name = normalize(path).replace(/^\/+/, "") || "index.html";
    requests.push({ method: request.method, name });
    if (handle?.(request, response, name)) return;
    const file = join(folder, name);
    if (!existsSync(file) || !statSync(file).isFile()) {
      response.writeHead(404).end();
      return;
    }
    const type = TYPES.get(extname(name)) ?? "application/octet-stream";
    response.writeHead(200, { "Content-Type": type, ...headers });
    if (replace.has(name)) response.end(replace.get(name));
    else createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    requests,
    close: () => new Promise((resolve) => (server.closeAllConnections(), server.close(resolve))),
  };
}

/** A file's bytes with one of them changed; text, at its end, so that it still parses. */
export function flipByte(file, isText) {
  const bytes = readFileSync(file);
  if (isText) bytes[bytes.length - 1] ^= 0x2a; // the last newline becomes a space
  else bytes[bytes.length >> 1] ^= 1;
  return bytes;
}
