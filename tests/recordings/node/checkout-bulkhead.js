// node-bulkhead: before payments stand a token rate limiter, a cockatiel bulkhead and a cockatiel breaker (five failures in a row); all three,
// and failures, get the same fallback, nothing is recorded. Slow phases fill the bulkhead, the limiter is turned down for a while.
const express = require('express')
const { circuitBreaker, bulkhead, wrap, handleAll, ConsecutiveBreaker, CircuitState } = require('cockatiel')
const { scenario, now, truth, request, payments } = require('./common')

const breaker = circuitBreaker(handleAll, { halfOpenAfter: 5000, breaker: new ConsecutiveBreaker(5) })
const write = truth('payments', 'payments')
breaker.onStateChange((state) => write({ [CircuitState.Open]: 'open', [CircuitState.HalfOpen]: 'half_open', [CircuitState.Closed]: 'closed' }[state]))
const guard = wrap(bulkhead(3, 1), breaker)

let tokens = 0
setInterval(() => { tokens = Math.min(tokens + now(scenario.limit, 30) / 10, 5) }, 100)

async function pay() {
  if (tokens < 1) throw new Error('limited')
  tokens -= 1
  return guard.execute(() => request(`${payments}/charge`))
}

const app = express()
for (const path of ['/order', '/renew']) {
  app.post(path, async (req, res) => {
    res.json(await pay().catch(() => ({ paid: 'later' })))
  })
}
app.get('/health', (req, res) => res.send('ok'))
app.listen(process.env.PORT, '127.0.0.1')
