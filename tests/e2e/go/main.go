// A gRPC service and its caller in Go, whose library pings for each DATA to measure bandwidth.
//
//	serve                          prints the port, echoes every message until standard input ends
//	call ADDRESS CALLS SECONDS     calls one after the other, then streams; prints what failed as JSON.
//	                               ADDRESS may be unix:PATH; AUTHORITY in the environment is named then
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// raw passes messages on as they are: no code has to be generated.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "raw" }

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	echo := func(_ any, stream grpc.ServerStream) error {
		for {
			var message []byte
			if err := stream.RecvMsg(&message); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(echo))
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	return server.Serve(listener)
}

type outcome struct {
	Calls    int      `json:"calls"`
	Messages int      `json:"messages"`
	Failures []string `json:"failures"`
}

func call(address string, calls int, seconds float64) error {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
	}
	if authority := os.Getenv("AUTHORITY"); authority != "" {
		options = append(options, grpc.WithAuthority(authority))
	}
	if !strings.HasPrefix(address, "unix:") {
		address = "passthrough:///" + address
	}
	connection, err := grpc.NewClient(address, options...)
	if err != nil {
		return err
	}
	seen := outcome{Failures: []string{}}
	message := make([]byte, 100)
	for number := range calls {
		var answer []byte
		if err := connection.Invoke(context.Background(), "/echo/Unary", &message, &answer); err != nil {
			seen.Failures = append(seen.Failures, fmt.Sprintf("call %d: %v", number, err))
		} else {
			seen.Calls++
		}
	}
	if err := stream(connection, seconds, &seen); err != nil {
		seen.Failures = append(seen.Failures, fmt.Sprintf("message %d: %v", seen.Messages, err))
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func stream(connection *grpc.ClientConn, seconds float64, seen *outcome) error {
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := connection.NewStream(context.Background(), both, "/echo/Stream")
	if err != nil {
		return err
	}
	message := make([]byte, 100)
	until := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(until) {
		var answer []byte
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
		if err := stream.RecvMsg(&answer); err != nil {
			return err
		}
		seen.Messages++
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var answer []byte
	if err := stream.RecvMsg(&answer); err != io.EOF {
		return fmt.Errorf("the stream does not end: %w", err)
	}
	return nil
}

func main() {
	var err error
	if os.Args[1] == "serve" {
		err = serve()
	} else {
		calls, _ := strconv.Atoi(os.Args[3])
		seconds, _ := strconv.ParseFloat(os.Args[4], 64)
		err = call(os.Args[2], calls, seconds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
