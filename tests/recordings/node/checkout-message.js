// node-message: opossum around payments and around inventory (which never fails). What a breaker or a callee throws goes to the error handler,
// which records it on the active span and answers 500. No span names a breaker.
const express = require('express')
const CircuitBreaker = require('opossum')
const { trace, SpanStatusCode } = require('@opentelemetry/api')
const { watch, post, payments, inventory } = require('./common')

const options = { timeout: 1000, resetTimeout: 5000, errorThresholdPercentage: 50, volumeThreshold: 5, rollingCountTimeout: 4000 }
const pay = watch(new CircuitBreaker(() => post(`${payments}/charge`), { ...options, name: 'payments' }), 'payments')
const reserve = watch(new CircuitBreaker(() => post(`${inventory}/reserve`), { ...options, name: 'inventory' }), 'inventory')

const app = express()
app.post('/order', async (req, res) => {
  const paid = await pay.fire()
  res.json({ paid, reserved: await reserve.fire() })
})
app.get('/stock/:item', async (req, res) => {
  res.json(await reserve.fire())
})
app.use((error, req, res, next) => {
  const span = trace.getActiveSpan()
  span.recordException(error)
  span.setStatus({ code: SpanStatusCode.ERROR, message: error.message })
  res.status(500).json({ error: error.message })
})
app.listen(process.env.PORT, '127.0.0.1')
