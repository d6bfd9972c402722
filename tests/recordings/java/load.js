// Load on checkout, not instrumented: Poisson arrivals, each instance its own, at the rate and with the mix that phases.json gives for SCENARIO:
// {"rate": per second and instance, "mix": {"POST /order": share, ...}, "seconds": length, "bursts": [[second, length, factor]]}
const http = require('node:http')
const { SCENARIO, START, PORTS } = process.env
const { rate, mix, seconds, bursts = [] } = require('./phases.json')[SCENARIO].load
const total = Object.values(mix).reduce((a, b) => a + b)
const counts = {}

function choose() {
  let at = Math.random() * total
  for (const [operation, share] of Object.entries(mix)) if ((at -= share) < 0) return operation.split(' ')
}

function next(port, agent) {
  const now = (Date.now() - START) / 1000
  if (now > seconds) return agent.destroy()
  const burst = bursts.find(([at, length]) => now >= at && now < at + length)
  const calm = now < 10 ? 0.5 : 1
  setTimeout(() => {
    const [method, path] = choose()
    const count = (x) => { counts[`${method} ${path} ${x}`] = 1 + (counts[`${method} ${path} ${x}`] || 0) }
    http.request({ port, method, path, host: '127.0.0.1', agent }, (res) => { res.resume(); count(res.statusCode) })
      .on('error', (e) => count(e.code)).end()
    next(port, agent)
  }, -Math.log(1 - Math.random()) * 1000 / (rate * calm * (burst ? burst[2] : 1)))
}

for (const port of PORTS.split(' ')) next(Number(port), new http.Agent({ keepAlive: true }))
process.on('exit', () => console.log(JSON.stringify(counts)))
