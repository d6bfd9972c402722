// Load on checkout, not instrumented: Poisson arrivals. scenarios.json gives for SCENARIO {"rate": a second, "mix": {"POST /order": weight, …},
// "seconds": length}; half the rate in the first ten seconds.
const http = require('node:http')
const { SCENARIO, START, PORT } = process.env
const { rate, mix, seconds } = require('./scenarios.json')[SCENARIO].load
const total = Object.values(mix).reduce((a, b) => a + b)
const agent = new http.Agent({ keepAlive: true })
const counts = {}

function choose() {
  let at = Math.random() * total
  for (const [operation, share] of Object.entries(mix)) if ((at -= share) < 0) return operation.split(' ')
}

function next() {
  const now = (Date.now() - START) / 1000
  if (now > seconds) return setTimeout(() => agent.destroy(), 3000)
  setTimeout(() => {
    const [method, path] = choose()
    const count = (x) => { counts[`${method} ${path} ${x}`] = 1 + (counts[`${method} ${path} ${x}`] || 0) }
    http.request({ port: PORT, method, path, host: '127.0.0.1', agent }, (res) => { res.resume(); count(res.statusCode) })
      .on('error', (e) => count(e.code)).end()
    next()
  }, -Math.log(1 - Math.random()) * 1000 / (rate * (now < 10 ? 0.5 : 1)))
}

next()
process.on('exit', () => console.log(JSON.stringify(counts)))
