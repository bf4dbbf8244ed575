import AVFoundation
import SwiftUI

@main
struct LesionApp: App {
    var body: some Scene {
        WindowGroup { ContentView() }
    }
}

/// The camera's square, a button, and the answer. What is in the square is what is classified.
struct ContentView: View {
    @StateObject private var camera = Camera()

    var body: some View {
        ScrollView {
            VStack(alignment: .leading, spacing: 16) {
                Text("Research software. Not a medical device: do not diagnose with it.").bold()
                CameraPreview(session: camera.session)
                    .aspectRatio(1, contentMode: .fit)
                    .accessibilityLabel("Camera: the square that is classified")
                Button("Classify", action: camera.classify)
                    .buttonStyle(.borderedProminent)
                    .disabled(!camera.isReady)
                Text(camera.result).font(.title3)
                Text(camera.notice).font(.footnote)
            }
            .padding()
        }
        .onAppear(perform: camera.start)
    }
}

/// The camera's picture, filling its square from the center.
struct CameraPreview: UIViewRepresentable {
    let session: AVCaptureSession

    final class LayerView: UIView {
        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }
    }

    func makeUIView(context: Context) -> LayerView {
        let view = LayerView()
        let layer = view.layer as? AVCaptureVideoPreviewLayer
        layer?.session = session
        layer?.videoGravity = .resizeAspectFill
        return view
    }

    func updateUIView(_ view: LayerView, context: Context) {}
}
