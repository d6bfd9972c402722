// node-nobreaker: no breaker at all. After real faults of payments: a feature flag stops the calls, a cache answers most of them and less and less,
// a retry budget gives second tries until it is spent, and at last the call is removed. Failures are caught: 503, nothing recorded.
const express = require('express')
const { scenario, now, post, payments, inventory } = require('./common')

let budget = 5
setInterval(() => { budget = Math.min(budget + 0.2, 5) }, 1000)

async function charge() {
  if (!now(scenario.flag, true) || Math.random() < now(scenario.cache, 0)) return { paid: 'later' }
  try {
    return await post(`${payments}/charge`)
  } catch (error) {
    if (budget < 1) throw error
    budget -= 1
    return post(`${payments}/charge`)
  }
}

const app = express()
app.post('/order', async (req, res) => {
  try {
    const paid = await charge()
    res.json({ paid, reserved: await post(`${inventory}/reserve`) })
  } catch {
    res.status(503).json({ later: true })
  }
})
app.listen(process.env.PORT, '127.0.0.1')
