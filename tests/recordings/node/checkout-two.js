// node-two: two opossum breakers on one callee, by path: /charge and /refund fail independently. POST /shop/pay charges, /shop/return refunds,
// /shop/exchange does both. Handlers call next(error): the rejection goes up through a router, a versioning middleware and a mounted app,
// and Express instrumentation records it on each of their INTERNAL spans. The breakers' names are in no span.
const express = require('express')
const CircuitBreaker = require('opossum')
const { watch, post, payments } = require('./common')

const options = { timeout: 1000, resetTimeout: 5000, errorThresholdPercentage: 50, volumeThreshold: 5, rollingCountTimeout: 4000 }
function guarded(path) {
  const breaker = new CircuitBreaker(() => post(`${payments}${path}`), { ...options, name: path.slice(1) })
  return watch(breaker, 'payments', { breaker: path.slice(1), aliases: [path, `POST ${path}`] })
}
const charge = guarded('/charge')
const refund = guarded('/refund')

const router = express.Router()
router.post('/pay', (req, res, next) => {
  charge.fire().then((paid) => res.json({ paid }), next)
})
router.post('/return', (req, res, next) => {
  refund.fire().then((back) => res.json({ back }), next)
})
router.post('/exchange', (req, res, next) => {
  refund.fire().then((back) => charge.fire().then((paid) => res.json({ back, paid }))).catch(next)
})
const shop = express()
shop.use(function version(req, res, next) {
  router(req, res, next)
})
const app = express()
app.use('/shop', shop)
app.use((error, req, res, next) => {
  res.status(error.code === 'EOPENBREAKER' ? 503 : 502).json({ error: error.message })
})
app.listen(process.env.PORT, '127.0.0.1')
