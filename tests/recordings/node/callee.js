// A callee of checkout, plain node:http. Its faults are a script in time: scenarios.json has for SCENARIO and SERVICE a list of
// [second, fault], or one list per path; seconds count from START (unix ms). Faults: ok; slow:MS; error:SHARE (500); reset:SHARE (the
// connection is cut); hang (answers after 4 s); refuse (nobody listens).
const http = require('node:http')
const { SCENARIO, SERVICE, START, PORT } = process.env
const script = require('./scenarios.json')[SCENARIO][SERVICE]
const paths = Array.isArray(script) ? { '/': script } : script

function fault(path) {
  const list = paths[path] || paths['/'] || []
  const second = (Date.now() - START) / 1000
  const [kind, value] = (list.filter(([at]) => at <= second).pop() || [0, 'ok'])[1].split(':')
  return { kind, value: Number(value || 1) }
}

const server = http.createServer((req, res) => {
  const { kind, value } = fault(req.url)
  const usual = 4 + 20 * Math.random() + (Math.random() < 0.02 ? 100 : 0)
  const answer = (status, after) => setTimeout(() => {
    res.writeHead(status, { 'content-type': 'application/json' })
    res.end(JSON.stringify({ service: SERVICE, status }))
  }, after)
  req.resume()
  if (kind === 'slow') return answer(200, value * (0.7 + 0.6 * Math.random()))
  if (kind === 'error' && Math.random() < value) return answer(500, usual)
  if (kind === 'reset' && Math.random() < value) return setTimeout(() => req.socket.destroy(), usual)
  if (kind === 'hang') return answer(200, 4000)
  answer(SERVICE === 'payments' && Math.random() < 0.01 ? 402 : 200, usual)
})
server.keepAliveTimeout = 60_000

let listening = false
setInterval(() => {
  const wanted = fault('/').kind !== 'refuse'
  if (wanted === listening) return
  listening = wanted
  if (wanted) return server.listen(Number(PORT), '127.0.0.1')
  server.close()
  server.closeAllConnections()
}, 100)
