import AVFoundation
import LesionCore
import SwiftUI

/// The camera, the engine, and the answer to the frame that follows a tap; all on one queue.
final class Camera: NSObject, ObservableObject, AVCaptureVideoDataOutputSampleBufferDelegate {
    let session = AVCaptureSession()
    @Published private(set) var isReady = false
    @Published private(set) var result = "Comparing this device with the expected outputs …"
    @Published private(set) var notice = ""
    private let queue = DispatchQueue(label: "engine and frames")
    private var classifier: Classifier?
    private var wanted = false

    func start() {
        AVCaptureDevice.requestAccess(for: .video) { [self] permitted in
            queue.async { [self] in
                do {
                    guard permitted else {
                        throw Failure("The camera is not permitted. Permit it in Settings.")
                    }
                    let opened = try openClassifier()
                    classifier = opened
                    try configure()
                    session.startRunning()
                    let text = "\(opened.contract.name)\n\(opened.contract.notice)"
                    show("Ready. Place the lesion in the square.", ready: true, notice: text)
                } catch {  // no answer from a device that computes otherwise
                    show("No answer is given. \(error.localizedDescription)")
                }
            }
        }
    }

    func classify() {
        queue.async { self.wanted = true }
    }

    private func configure() throws {
        let back = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .back)
        guard let back else { throw Failure("This device has no camera on its back.") }
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA
        ]
        output.setSampleBufferDelegate(self, queue: queue)
        session.beginConfiguration()
        session.sessionPreset = .hd1280x720
        session.addInput(try AVCaptureDeviceInput(device: back))
        session.addOutput(output)
        output.connection(with: .video)?.videoRotationAngle = 90  // portrait, as the preview
        session.commitConfiguration()
    }

    func captureOutput(
        _: AVCaptureOutput, didOutput frame: CMSampleBuffer, from _: AVCaptureConnection
    ) {
        guard wanted, let classifier, let buffer = frame.imageBuffer else { return }
        wanted = false
        CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        guard let start = CVPixelBufferGetBaseAddress(buffer) else { return }
        let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
        let rowBytes = CVPixelBufferGetBytesPerRow(buffer)
        let bytes = [UInt8](UnsafeRawBufferPointer(start: start, count: height * rowBytes))
        do {
            let pixels = Pixels(
                width: width, height: height, rowBytes: rowBytes, bytes: bytes, red: 2)
            show(describe(try classifier.classify(pixels), classifier.contract.operating_point))
        } catch {
            show("No answer is given. \(error.localizedDescription)")
        }
    }

    private func show(_ result: String, ready: Bool = false, notice: String? = nil) {
        DispatchQueue.main.async { [self] in
            self.result = result
            if let notice { self.notice = notice }
            if ready { isReady = true }
            UIAccessibility.post(notification: .announcement, argument: result)
        }
    }
}
