// Opens the pages of two audits, and uses them as a person would.
"use strict";
const assert = require("node:assert");
const { pathToFileURL } = require("node:url");
const { chromium } = require("playwright-core");

const [executablePath, folder] = process.argv.slice(2);
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

const check = async (browser, size) => {
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => request.url().startsWith("file:") || problems.push(request.url()));
  await page.goto(pathToFileURL(`${folder}/${size}.html`).href);

  const tiles = await page.locator(".tile").allInnerTexts();
  const tile = (label) => tiles.find((text) => text.endsWith(`\n${label}`)).split("\n")[0].replaceAll(",", "");
  assert.equal(tile("nodes"), String(size));
  assert.equal(tile("working pairs"), String(size * (size - 1) - 1));
  assert.equal(tile("pairs lost"), "1");
  assert.equal(tile("nodes need an apply"), "1");
  const findings = await page.locator("#findings").innerText();
  assert.match(findings, /no route to the pods of n0/);
  assert.match(findings, /stranger\.json: machine .* is not in the configuration/);
  assert.equal(await page.locator("b", { hasText: /^n2$/ }).count(), 0, "a name became markup");

  // The map has the color of a lost pair at one place only.
  const colors = await page.evaluate(() => {
    const canvas = document.getElementById("matrix");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const counts = {};
    for (let at = 0; at < data.length; at += 4) {
      const color = [data[at], data[at + 1], data[at + 2]].join();
      counts[color] = (counts[color] || 0) + 1;
    }
    return counts;
  });
  const red = colors["198,47,47"];
  const side = await page.evaluate((nodes) => document.getElementById("matrix").width / nodes, size);
  assert.ok(red > 0 && red <= side * side, JSON.stringify(colors));

  // Pointing at the lost pair tells what it is. The row is n1, the column n0.
  const box = await page.locator("#matrix").boundingBox();
  const cell = box.width / size;
  await page.locator("#matrix").scrollIntoViewIfNeeded();
  await page.locator("#matrix").hover({ position: { x: cell / 2, y: cell * 1.5 } });
  assert.match(await page.locator("#cell").innerText(), /n1 → n0: packets are lost/);
  assert.match(await page.locator("#pair").innerText(), /HG1210/);

  // The filter.
  await page.fill("#filter", "n1");
  const expected = Array.from({ length: size }, (_, node) => `n${node}`).filter((name) => name.includes("n1")).length;
  assert.equal(await page.locator("#nodes tr").count(), expected);
  await page.check("#bad");
  const bad = await page.locator("#nodes tr").allInnerTexts();
  assert.deepEqual(bad.map((row) => row.split("\t")[0].trim()), ["n1"]);
  await page.click("#nodes button.node");
  assert.match(await page.locator("#cell").innerText(), /n1 → n0: packets are lost/);

  assert.deepEqual(problems, []);
  await page.screenshot({ path: `${folder}/${size}.png`, fullPage: true });
  await page.close();
};

(async () => {
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  try {
    for (const size of [3, 300]) await check(browser, size);
  } finally {
    await browser.close();
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
