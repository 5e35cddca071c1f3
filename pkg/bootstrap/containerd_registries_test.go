package bootstrap

var testMirrors = []MirrorConfig{{Registry: "docker.io", Endpoints: []EndpointConfig{{URL: "https://mirror.example:5000"}}}}
