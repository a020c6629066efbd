// Calls Google's APIs through a proxy as applications do, with their own libraries told to leave
// authentication alone: node cloud_client.mjs WHAT PROXY_ORIGIN
import { createHash, randomBytes } from 'node:crypto'
import { AnthropicVertex } from '@anthropic-ai/vertex-sdk'
import { PubSub } from '@google-cloud/pubsub'
import { Storage } from '@google-cloud/storage'
import { PassThroughClient } from 'google-auth-library'

const [what, origin] = process.argv.slice(2)
const project = `${origin}/v1/projects/p`
const json = { 'content-type': 'application/json' }

async function vertex() {
  const model = `${project}/locations/europe-west1/publishers/google/models/gemini`
  const body = JSON.stringify({ contents: [{ role: 'user', parts: [{ text: 'all' }] }] })
  const response = await fetch(`${model}:streamGenerateContent?alt=sse`, {
    method: 'POST', headers: json, body,
  })
  let text = ''
  let rest = ''
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    rest += piece
    for (let end; (end = rest.indexOf('\r\n\r\n')) >= 0; rest = rest.slice(end + 4)) {
      const event = JSON.parse(rest.slice('data: '.length, end))
      // The second event comes only when the first was seen.
      if (!text) await fetch(`${origin}/seen`)
      text += event.candidates[0].content.parts[0].text
    }
  }
  return { status: response.status, text }
}

async function anthropic() {
  const client = new AnthropicVertex({
    baseURL: `${origin}/v1`,
    region: 'europe-west1',
    projectId: 'p',
    authClient: new PassThroughClient(),
  })
  const question = {
    model: 'claude', max_tokens: 16, messages: [{ role: 'user', content: 'hello' }],
  }
  const whole = await client.messages.create(question)
  const streamed = await client.messages.stream(question).finalMessage()
  return { whole: whole.content[0].text, streamed: streamed.content[0].text }
}

async function storage() {
  const content = randomBytes(50 * 1024 * 1024)
  const bucket = new Storage({ apiEndpoint: origin, projectId: 'p' }).bucket('bucket')
  // Resumable uploads would go to an address that the API names, past the proxy.
  await bucket.file('large').save(content, { resumable: false, validation: 'md5' })
  const [back] = await bucket.file('large').download({ validation: 'md5' })
  const digest = (bytes) => createHash('sha256').update(bytes).digest('hex')
  return { size: back.length, same: digest(back) === digest(content) }
}

async function pubsub() {
  const client = new PubSub({
    projectId: 'p', apiEndpoint: new URL(origin).host, emulatorMode: true,
  })
  const id = await client.topic('orders').publishMessage({ data: Buffer.from('hello') })
  await client.close()
  return { id }
}

async function firestore() {
  const documents = `${project}/databases/(default)/documents/orders`
  const body = JSON.stringify({ fields: { total: { integerValue: '7' } } })
  await fetch(`${documents}?documentId=a`, { method: 'POST', headers: json, body })
  return (await fetch(`${documents}/a`)).json()
}

const calls = { vertex, anthropic, storage, pubsub, firestore }
console.log(JSON.stringify(await calls[what]()))
