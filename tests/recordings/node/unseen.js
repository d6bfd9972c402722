// unseen.js SPANS.jsonl TRUTH.jsonl: prints the truth with "unseen": true on what no recorded span can show: an attempt (half-open by timer) without
// a recorded call let through within a second and before the breaker opens again, and that opening. Sampling leaves many of these.
const fs = require('node:fs')
const [spans, truth] = process.argv.slice(2).map((file) => fs.readFileSync(file, 'utf8').split('\n').filter(Boolean))
const ports = { payments: new URL(process.env.PAYMENTS).port, inventory: new URL(process.env.INVENTORY).port }
const calls = spans.flatMap((line) => JSON.parse(line).resourceSpans).flatMap((r) => r.scopeSpans).flatMap((s) => s.spans)
  .filter((span) => span.kind === 3)
  .map((span) => ({ start: Number(span.startTimeUnixNano), url: new URL(span.attributes.find((a) => a.key === 'url.full').value.stringValue) }))

const lines = truth.map((text) => ({ text, ...JSON.parse(text) }))
lines.forEach((line, i) => {
  const next = lines.slice(i + 1).find((other) => other.name === line.name)
  if (line.to === 'half_open') {
    const until = Math.min(line.t_ns + 1e9, next?.to === 'open' ? next.t_ns : Infinity)
    const path = line.aliases?.[0]
    const shown = calls.some(({ start, url }) => url.port === ports[line.callee] && (!path || url.pathname === path) &&
      start >= line.t_ns - 2e6 && start < until)
    line.unseen = !shown
    if (!shown && next?.to === 'open') next.unseen = true
  }
  console.log(line.unseen ? line.text.replace(/}$/, ',"unseen":true}') : line.text)
})
