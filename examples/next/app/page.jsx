export default function Page() {
  return <p>POST a picture to /api/caption</p>
}
