// node-silent: opossum around payments and around inventory. Every error is caught, a failure like a rejection: an order is answered 503, a
// quote goes on to inventory with a fallback price. Nothing is recorded.
const express = require('express')
const CircuitBreaker = require('opossum')
const { watch, request, payments, inventory } = require('./common')

const options = { timeout: 1000, resetTimeout: 5000, errorThresholdPercentage: 40, volumeThreshold: 6, rollingCountTimeout: 3000 }
const pay = watch(new CircuitBreaker(() => request(`${payments}/charge`), { ...options, name: 'payments' }), 'payments')
const price = { fire: () => pay.fire().catch(() => ({ price: 'usual' })) }
const reserve = watch(new CircuitBreaker(() => request(`${inventory}/reserve`), { ...options, name: 'inventory' }), 'inventory')

const app = express()
app.post('/order', async (req, res) => {
  try {
    const paid = await pay.fire()
    res.json({ paid, reserved: await reserve.fire() })
  } catch {
    res.status(503).json({ later: true })
  }
})
app.get('/quote', async (req, res) => {
  const { price: known } = await price.fire()
  const reserved = await reserve.fire().catch(() => null)
  res.json({ known, reserved })
})
app.listen(process.env.PORT, '127.0.0.1')
