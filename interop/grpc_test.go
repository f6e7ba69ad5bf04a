package interop

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// echoService has one method, which returns what is streamed to it.
var echoService = grpc.ServiceDesc{
	ServiceName: "weir.Echo",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: "Echo", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error {
			for {
				var m wrapperspb.BytesValue
				if err := s.RecvMsg(&m); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(&m); err != nil {
					return err
				}
			}
		},
	}},
}

// TestGRPC: grpc-go's client and server over netconn: unary calls, a stream both
// ways, a deadline, and a graceful stop.
func TestGRPC(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		ln := listen(t, l)
		srv := grpc.NewServer()
		srv.RegisterService(&echoService, struct{}{})
		hs := health.NewServer()
		healthpb.RegisterHealthServer(srv, hs)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()

		d := &netconn.Dialer{Loop: l}
		cc, err := grpc.NewClient("passthrough:///"+ln.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				return d.DialContext(ctx, "tcp", addr)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		ctx := within(t, 30*time.Second)

		hc := healthpb.NewHealthClient(cc)
		for range 100 {
			r, err := hc.Check(ctx, &healthpb.HealthCheckRequest{})
			if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
				t.Fatal(r, err)
			}
		}

		stream, err := cc.NewStream(ctx, &echoService.Streams[0], "/weir.Echo/Echo")
		if err != nil {
			t.Fatal(err)
		}
		piece := pattern(100_000)
		go func() {
			for range 20 {
				if err := stream.SendMsg(wrapperspb.Bytes(piece)); err != nil {
					t.Error(err)
				}
			}
			if err := stream.CloseSend(); err != nil {
				t.Error(err)
			}
		}()
		n := 0
		for ; ; n++ {
			var m wrapperspb.BytesValue
			if err := stream.RecvMsg(&m); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.Value, piece) {
				t.Fatalf("message %d is another", n)
			}
		}
		if n != 20 {
			t.Errorf("%d messages came back of 20", n)
		}

		// A watch that the server never ends, cut by a deadline.
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		watch, err := hc.Watch(short, &healthpb.HealthCheckRequest{})
		for err == nil {
			_, err = watch.Recv()
		}
		// The server's own deadline may come first, and is reported in another way.
		if c := status.Code(err); c != codes.DeadlineExceeded && c != codes.Canceled {
			t.Errorf("the watch ended with %v", err)
		}

		hs.Shutdown()
		srv.GracefulStop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
