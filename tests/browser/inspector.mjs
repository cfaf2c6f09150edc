// Drives MCP Inspector in Chromium, as a person would: connect, log in at Keycloak, list tools, call one with progress.
//
// usage: node inspector.mjs < plan.json     (tests/e2e/tests/browser.rs writes the plan and starts the Inspector)
//
// plan: { playwright, chromium, inspector, token, shots, visits: [{ name, server, user, password, organisation,
//         tool, arguments: {label: value}, result, again }] }
// Prints one line of JSON for each visit: { name, pages, dress, tools, progress, result, shots, error }.

import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

const text = await new Promise((done) => {
  let all = "";
  process.stdin.on("data", (part) => (all += part)).on("end", () => done(all));
});
const plan = JSON.parse(text);
const { chromium } = createRequire(join(plan.playwright, "package.json"))("playwright-core");

// No name but loopback's is looked up: the page asks for a web font, and nothing here may leave the machine.
const browser = await chromium.launch({
  executablePath: plan.chromium,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost , EXCLUDE *.localhost",
  ],
});
mkdirSync(plan.shots, { recursive: true });
let failed = false;
let context;
for (const visit of plan.visits) {
  const report = { name: visit.name, pages: [], tools: [], progress: [], shots: [] };
  // A person of their own each time, without a cookie of another's login, unless the same one goes on.
  if (!visit.again) {
    await context?.close();
    context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
    context.setDefaultTimeout(30_000);
  }
  const page = await context.newPage();
  page.on("pageerror", (error) => (report.pageErrors ??= []).push(String(error)));
  const shot = async (what) => {
    const file = join(plan.shots, `${visit.name}-${report.shots.length + 1}-${what}.png`);
    await page.screenshot({ path: file });
    report.shots.push(file);
  };
  try {
    await connect(page, visit, report, shot);
    await useTool(page, visit, report, shot);
  } catch (error) {
    failed = true;
    report.error = String(error?.message ?? error).slice(0, 2000);
    await shot("failed").catch(() => {});
    report.body = (await page.locator("body").innerText().catch(() => "")).slice(0, 2000);
  }
  console.log(JSON.stringify(report));
  await page.close();
}
await browser.close();
process.exitCode = failed ? 1 : 0;

async function connect(page, visit, report, shot) {
  await page.goto(`${plan.inspector}/?MCP_INSPECTOR_API_TOKEN=${encodeURIComponent(plan.token)}`);
  const connected = page.getByText("Connected", { exact: true }).first();
  await page.getByLabel(`Connect or disconnect "${visit.server}"`).click({ force: true });
  // Keycloak's pages, in whatever order they come, until the Inspector is back and connected.
  const inspector = new URL(plan.inspector).origin;
  const deadline = Date.now() + 60_000;
  let last = "";
  for (;;) {
    if (Date.now() > deadline) throw new Error(`not connected after ${report.pages.join(", ")}`);
    if (page.url().startsWith(inspector)) {
      if (await connected.isVisible().catch(() => false)) break;
      await page.waitForTimeout(100);
      continue;
    }
    const name = await page.locator("body").getAttribute("data-page-id", { timeout: 5_000 }).catch(() => null);
    const here = `${name} ${page.url()}`;
    if (name === null || here === last) {
      await page.waitForTimeout(100);
      continue;
    }
    last = here;
    report.pages.push(name);
    const dress = page.locator("link[href*='/organisations/']").first();
    report.dress ??= await dress.getAttribute("href", { timeout: 500 }).catch(() => undefined);
    await shot(name.replace(/^login-/, ""));
    await answer(page, visit);
  }
  await shot("connected");
}

async function answer(page, visit) {
  const submit = (locator) => Promise.all([page.waitForNavigation({ waitUntil: "load" }), locator.click()]);
  const accept = page.locator("[name=accept]");
  if (await accept.count()) return submit(accept);
  const organisation = page.locator(`button[name="kc.org"][value="${visit.organisation}"]`);
  if (await organisation.count()) return submit(organisation);
  const password = page.locator("input[name=password]");
  const username = page.locator("input[name=username]");
  if (await username.isVisible().catch(() => false)) await username.fill(visit.user);
  if (await password.count()) await password.fill(visit.password);
  return submit(page.locator("#kc-login"));
}

async function useTool(page, visit, report, shot) {
  await page.getByText("Tools", { exact: true }).first().click();
  // A tool is listed with its title and, in a line of its own, its name.
  const tool = page.getByText(visit.tool, { exact: true }).first();
  await tool.waitFor();
  report.tools = (await page.locator("body").innerText()).split("\n").filter((line) => /^[a-z]+(_[a-z]+)*$/.test(line));
  await shot("tools");
  await tool.click();
  for (const [label, value] of Object.entries(visit.arguments)) {
    await page.getByRole("textbox", { name: new RegExp(`^${label}`) }).first().fill(value);
  }
  // Every text with progress that the page ever shows, however briefly.
  await page.evaluate(() => {
    window.progressSeen = [];
    const look = () => {
      for (const [line] of document.body.innerText.matchAll(/.*\b\d+ \/ \d+\b.*/g)) {
        if (!window.progressSeen.includes(line.trim())) window.progressSeen.push(line.trim());
      }
    };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  const seen = () => page.evaluate(() => window.progressSeen);
  await page.getByRole("button", { name: "Execute Tool" }).click();
  const results = async () => (await page.locator("body").innerText()).split("Results\n").at(1) ?? "";
  const deadline = Date.now() + 60_000;
  let pictured = false;
  for (;;) {
    if (!pictured && (await seen()).length >= 2) {
      pictured = true;
      await shot("progress");
    }
    if ((await results()).includes(visit.result)) break;
    if (Date.now() > deadline) throw new Error(`no result; progress seen: ${(await seen()).join(", ")}`);
    await page.waitForTimeout(50);
  }
  report.progress = await seen();
  report.result = (await results()).slice(0, 4000);
  await shot("result");
}
