// What the checkouts share: the script in time, the truth, and two ways to call a callee.
const fs = require('node:fs')
const http = require('node:http')
const { SCENARIO, START, TRUTH, INSTANCE, PAYMENTS, INVENTORY } = process.env
const scenario = require('./scenarios.json')[SCENARIO]

const second = () => (Date.now() - START) / 1000

/** The value in force now of a list of [second, value]. */
const now = (list, otherwise) => (list.filter(([at]) => at <= second()).pop() || [0, otherwise])[1]

/** Returns a listener's function that writes the breaker's transitions, at the moment they are told. */
function truth(name, callee, more = {}) {
  let from = 'closed'
  return (to) => {
    const line = JSON.stringify({ name, from, to, instance: INSTANCE, callee, service: 'checkout', ...more })
    fs.appendFileSync(TRUTH, `{"t_ns": ${Date.now()}000000, ${line.slice(1)}\n`)
    from = to
  }
}

/** Writes the truth of an opossum breaker. */
function watch(breaker, callee, more) {
  const write = truth(breaker.name, callee, more)
  breaker.on('open', () => write('open'))
  breaker.on('halfOpen', () => write('half_open'))
  breaker.on('close', () => write('closed'))
  return breaker
}

/** With fetch (undici). */
async function post(url) {
  const answer = await fetch(url, { method: 'POST', signal: AbortSignal.timeout(1500) })
  const body = await answer.json()
  if (answer.status >= 500) throw new Error(`${url.split('/').pop()} answered ${answer.status}`)
  return body
}

const agent = new http.Agent({ keepAlive: true })

/** With node:http. */
function request(url) {
  return new Promise((resolve, reject) => {
    http.request(url, { method: 'POST', agent, timeout: 1500 }, (answer) => {
      answer.resume()
      answer.on('end', () => answer.statusCode < 500 ? resolve({ status: answer.statusCode }) : reject(new Error(`answered ${answer.statusCode}`)))
      answer.on('error', reject)
    }).on('error', reject).on('timeout', function () { this.destroy(new Error('timed out')) }).end()
  })
}

module.exports = { scenario, now, truth, watch, post, request, payments: PAYMENTS, inventory: INVENTORY }
