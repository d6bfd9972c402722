// A callee of checkout: plain node:http, instrumented from outside (--require .../register). Its faults are a script in time:
// phases.json has for SCENARIO and SERVICE a list of [second, fault], or one list per path; seconds count from START (unix ms).
// Faults: ok; slow:MS; error:SHARE (500); reset:SHARE (the connection is cut); hang (no answer for 3 s); refuse (nobody listens).
const http = require('node:http')
const { SCENARIO, SERVICE, START, PORT } = process.env
const script = require('./phases.json')[SCENARIO][SERVICE]
const phases = Array.isArray(script) ? { '/': script } : script

const second = () => (Date.now() - START) / 1000
function fault(path) {
  const list = phases[path] || phases['/'] || []
  const [kind, value] = (list.filter(([at]) => at <= second()).pop() || [0, 'ok'])[1].split(':')
  return { kind, value: Number(value || 1) }
}

const server = http.createServer((req, res) => {
  const { kind, value } = fault(req.url)
  const usual = 8 + 25 * Math.random() + (Math.random() < 0.02 ? 120 : 0)
  const answer = (status, after) => setTimeout(() => {
    res.writeHead(status, { 'content-type': 'application/json' })
    res.end(JSON.stringify({ service: SERVICE, status }))
  }, after)
  req.resume()
  if (kind === 'slow') return answer(200, value * (0.85 + 0.5 * Math.random()))
  if (kind === 'error' && Math.random() < value) return answer(500, usual)
  if (kind === 'reset' && Math.random() < value) return setTimeout(() => req.socket.destroy(), usual)
  if (kind === 'hang') return answer(200, 3000)
  if (req.url === '/charge' && Math.random() < 0.02) return answer(402, usual)
  answer(200, usual)
})
server.keepAliveTimeout = 60_000

let listening = false
setInterval(() => {
  const wanted = fault('/').kind !== 'refuse'
  if (wanted === listening) return
  listening = wanted
  if (wanted) server.listen(Number(PORT), '127.0.0.1')
  else {
    server.close()
    server.closeAllConnections()
  }
}, 100)

process.on('SIGTERM', () => setTimeout(process.exit, 1000, 0))  // the SDK flushes meanwhile
