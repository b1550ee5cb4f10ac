// What npm_ws.py has the npm package ws do; the results go to standard output as JSON.
const assert = require("node:assert");
const { once } = require("node:events");
const WebSocket = require("ws");

const url = process.argv[2];
const found = {};

async function open(path = "", protocols = []) {
  const ws = new WebSocket(url + path, protocols);
  await once(ws, "open");
  return ws;
}

async function next(ws) {
  const [data, isBinary] = await once(ws, "message");
  return isBinary ? data : data.toString();
}

async function closed(ws) {
  const [code, reason] = await once(ws, "close");
  return [code, reason.toString()];
}

async function talk() {
  const ws = await open("", ["news", "chat"]);
  found.extensions = ws.extensions;
  found.protocol = ws.protocol;
  const pinged = once(ws, "ping");

  const messages = ["text", "", "\u2603\u0000", "x".repeat(126), "x".repeat(65536)];
  messages.push(Buffer.from("binary"), Buffer.alloc(0), Buffer.alloc(65535, 1));
  messages.push(Buffer.alloc(1 << 20, "0123456789"));
  found.echoed = 0;
  for (const message of messages) {
    ws.send(message);
    assert.deepStrictEqual(await next(ws), message);
    found.echoed += 1;
  }

  ws.send("in ", { fin: false });
  ws.ping("between"); // a control frame may stand between fragments
  ws.send("three ", { fin: false });
  ws.send("parts", { fin: true });
  const text = await next(ws);
  for (const fin of [false, false, true]) ws.send(Buffer.alloc(100000, 7), { fin, binary: true });
  found.fragments = [text, `binary ${(await next(ws)).length}`];

  // Its own ping, after the one between the fragments.
  const pong = new Promise((resolve) => {
    ws.on("pong", (data) => data.toString() !== "between" && resolve(data.toString()));
  });
  ws.ping("payload");
  found.pong = await pong;

  ws.send(JSON.stringify({ type: "ping" }));
  found["app ping"] = JSON.parse(await next(ws));

  await pinged;
  found["pinged by the server"] = true;

  ws.close(3000, "done");
  found.closed = await closed(ws);
}

async function be_closed() {
  const ws = await open();
  ws.send("close");
  found["closed by the server"] = await closed(ws);
  const large = await open();
  large.on("error", () => {}); // it may be cut off while it sends
  large.send(Buffer.alloc((1 << 20) + 1));
  found["too big"] = (await closed(large))[0];
}

async function be_refused() {
  const ws = new WebSocket(url + "forbidden");
  ws.on("error", () => {});
  const [, response] = await once(ws, "unexpected-response");
  let body = "";
  for await (const part of response) body += part;
  found.refused = [response.statusCode, response.headers["x-why"], body];
}

async function many() {
  const all = await Promise.all(Array.from({ length: 50 }, () => open()));
  const answers = all.map(next);
  all.forEach((ws, index) => ws.send(`${index}`));
  (await Promise.all(answers)).forEach((answer, index) => assert.equal(answer, `${index}`));
  const ends = all.map(closed);
  all.forEach((ws) => ws.close());
  found.many = (await Promise.all(ends)).length;
}

// Several clients that ask and are answered without a pause, with fragments and pings in between.
// A line is written for each new generation, when all have seen it.
async function live() {
  const all = await Promise.all(Array.from({ length: 20 }, () => open()));
  all.forEach((ws) => ws.on("close", (...how) => assert(ws.leaving, `closed: ${how}`)));
  for (let generation = 1; generation <= 4; generation += 1) {
    await Promise.all(all.map((ws, index) => until(ws, index, generation)));
    process.stdout.write(`${generation}\n`);
  }
  const ends = all.map(closed);
  all.forEach((ws) => {
    ws.leaving = true;
    ws.close(3000);
  });
  assert((await Promise.all(ends)).every(([code]) => code === 3000));
}

async function until(ws, index, generation) {
  for (let seen = 0; seen !== generation; ) {
    const large = Buffer.alloc(index === 0 ? 1 << 20 : 1000 * index, `${index} ${ws.count}`);
    ws.send(large.subarray(0, 500), { fin: false, binary: true });
    ws.ping();
    ws.send(large.subarray(500), { fin: true });
    assert.deepStrictEqual(await next(ws), large);
    ws.send("count");
    const [count, served] = (await next(ws)).split(" ").map(Number);
    ws.count = (ws.count ?? 0) + 1;
    assert.equal(count, ws.count);
    seen = served;
  }
}

async function main() {
  if (process.argv[3] === "live") return live();
  await talk();
  await be_closed();
  await be_refused();
  await many();
  const cut = await open();
  cut.terminate();
  process.stdout.write(JSON.stringify(found));
}

main().catch((error) => {
  console.error(error, found);
  process.exit(1);
});
