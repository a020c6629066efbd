// Fetches an ID token as a Node service does on Cloud Run: node google_auth.mjs AUDIENCE
import { GoogleAuth } from 'google-auth-library'

const [audience] = process.argv.slice(2)
const client = await new GoogleAuth().getIdTokenClient(audience)
const token = await client.idTokenProvider.fetchIdToken(audience)
console.log(JSON.stringify({ token }))
